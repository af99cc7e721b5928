package containerd
import ("testing";"os")
func TestTry(t *testing.T){ c:=ForNode("/tmp/rtw/node","/work/main/bin/assets"); if err:=c.Write();err!=nil{t.Fatal(err)}; os.WriteFile("/tmp/rtw/socket",[]byte(c.Socket()),0o600)}
