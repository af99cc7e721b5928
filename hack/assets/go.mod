module github.com/pinnace-dev/pinnace/hack/assets

go 1.26.0
