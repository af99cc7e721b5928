// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// killSignal is for processes that this program leaves behind when it is
// killed: a signal that asks would leave kube-apiserver waiting for etcd.
const killSignal = syscall.SIGKILL

const (
	serverStartTimeout = 90 * time.Second
	serverStopTimeout  = 15 * time.Second
)

// etcdPorts are loopback ports that stay the same for one run of the control
// plane, so that kube-apiserver finds an etcd that was restarted.
type etcdPorts struct{ client, peer, metrics int }

func loopbackURL(scheme string, port int) *url.URL {
	return &url.URL{Scheme: scheme, Host: "127.0.0.1:" + strconv.Itoa(port)}
}

// replacedGroups are the native APIs whose place Pinnace's take. Not serving
// them saves about 35 MB. What must stay although Pinnace has its own:
// discovery.k8s.io, which kube-apiserver's own informers watch, and
// ServiceCIDRs and IPAddresses of networking.k8s.io, which its Service
// allocator needs.
var replacedGroups = []string{
	"apps/v1",
	"autoscaling/v1",
	"autoscaling/v2",
	"batch/v1",
	"policy/v1",
	"resource.k8s.io/v1",
	"storage.k8s.io/v1",
	"networking.k8s.io/v1/ingresses",
	"networking.k8s.io/v1/ingressclasses",
	"networking.k8s.io/v1/networkpolicies",
}

// replacedAdmission are the plugins that watch the groups above: without them
// they would never be ready and hold up every request they look at.
var replacedAdmission = []string{
	"DefaultStorageClass",
	"DefaultIngressClass",
	"PersistentVolumeClaimResize",
	"StorageObjectInUseProtection",
}

// ephemeralEtcd is envtest's own, in our folder. The flag is envtest's default
// where the version has it; see startScript for why it is not left to envtest.
func ephemeralEtcd(l layout) *envtest.Etcd {
	etcd := &envtest.Etcd{DataDir: l.etcdData(), StartTimeout: serverStartTimeout, StopTimeout: serverStopTimeout}
	etcd.Configure().Set("unsafe-no-fsync", "true")
	return etcd
}

// ephemeralAPIServer is envtest's own, in our folder.
func ephemeralAPIServer(o Options, l layout, etcd *url.URL) *envtest.APIServer {
	server := &envtest.APIServer{CertDir: l.pki(), EtcdURL: etcd, StartTimeout: serverStartTimeout, StopTimeout: serverStopTimeout}
	setAll(server.Configure(), o.ExtraAPIServerArgs)
	return server
}

// durableEtcd renders etcd for one start. Each generation is a fresh value,
// since envtest's are not made to be started twice.
func durableEtcd(l layout, ports etcdPorts) *envtest.Etcd {
	etcd := &envtest.Etcd{
		// envtest asks this address whether etcd is well. It serves metrics and
		// health alone, so that it needs no certificate.
		URL:          loopbackURL("http", ports.metrics),
		DataDir:      l.etcdData(),
		StartTimeout: serverStartTimeout,
		StopTimeout:  serverStopTimeout,
	}
	client, peer := loopbackURL("https", ports.client).String(), loopbackURL("https", ports.peer).String()
	ca, cert, key := l.path("pki", EtcdAuthority+".crt"), l.path("pki", "etcd-server.crt"), l.path("pki", "etcd-server.key")
	args := etcd.Configure()
	setAll(args, map[string]string{
		"name": "pinnace",
		// A write that was acknowledged is on disk: envtest would skip this.
		"unsafe-no-fsync": "false",

		"listen-metrics-urls":   etcd.URL.String(),
		"listen-client-urls":    client,
		"advertise-client-urls": client,
		"client-cert-auth":      "true",
		"trusted-ca-file":       ca,
		"cert-file":             cert,
		"key-file":              key,

		"listen-peer-urls":            peer,
		"initial-advertise-peer-urls": peer,
		"initial-cluster":             "pinnace=" + peer,
		"peer-client-cert-auth":       "true",
		"peer-trusted-ca-file":        ca,
		"peer-cert-file":              cert,
		"peer-key-file":               key,

		// kube-apiserver compacts every five minutes, so old revisions never
		// fill this; past it, etcd refuses writes and says so.
		"quota-backend-bytes": strconv.Itoa(4 << 30),
		// etcd keeps this many entries of its log in memory for followers that
		// lag behind. There are none.
		"snapshot-count":           "2000",
		"snapshot-catchup-entries": "100",
		"enable-grpc-gateway":      "false",
		"log-level":                "warn",
	})
	// A store full of holes is shrunk at the start, for its pages are memory
	// too. One so large that this would take seconds is left alone.
	if db, err := os.Stat(filepath.Join(l.etcdData(), "member", "snap", "db")); err == nil && db.Size() < 256<<20 {
		args.Set("bootstrap-defrag-threshold-megabytes", "8")
	}
	return etcd
}

// durableAPIServer renders kube-apiserver for one start.
func durableAPIServer(o Options, l layout, ports etcdPorts, files serverFiles, users envtest.Authn) *envtest.APIServer {
	server := &envtest.APIServer{
		// With apiserver.crt in this folder, envtest makes no certificates.
		CertDir:       l.pki(),
		EtcdURL:       loopbackURL("https", ports.client),
		StartTimeout:  serverStartTimeout,
		StopTimeout:   serverStopTimeout,
		SecureServing: envtest.SecureServing{Authn: users},
	}
	server.SecureServing.Address = o.BindAddress
	server.SecureServing.Port = strconv.Itoa(o.APIPort)
	pki := func(name string) string { return l.path("pki", name) }
	args := server.Configure()
	setAll(args, map[string]string{
		"etcd-cafile":   pki(EtcdAuthority + ".crt"),
		"etcd-certfile": pki("etcd-client.crt"),
		"etcd-keyfile":  pki("etcd-client.key"),

		"advertise-address":    o.advertiseAddress(),
		"tls-cert-file":        pki("apiserver.crt"),
		"tls-private-key-file": pki("apiserver.key"),

		"requestheader-client-ca-file":       pki(FrontProxyAuthority + ".crt"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             pki("front-proxy-client.crt"),
		"proxy-client-key-file":              pki("front-proxy-client.key"),

		"service-account-issuer":           o.Issuer,
		"service-account-key-file":         pki("sa.pub"),
		"service-account-signing-key-file": pki("sa.key"),
		"service-cluster-ip-range":         o.ServiceCIDR,

		"authorization-mode":    "RBAC",
		"authentication-config": files.authentication,
		// envtest turns ServiceAccount off here; it is on by default.
		"enable-admission-plugins":   "ServiceAccount",
		"encryption-provider-config": files.encryption,

		// Who serves the API is written in each kubeconfig. The native Service
		// "kubernetes" has no one to answer for it, so a write every ten seconds
		// would serve nobody.
		"endpoint-reconciler-type": "none",
		// The watch cache would hold the schemas of all kinds once more, 14 MB,
		// for the sake of readers that come when a kind is installed.
		"watch-cache-sizes": "customresourcedefinitions.apiextensions.k8s.io#0",
		"profiling":         "false",
	})
	// The generic loops make the accounts that the plugin asks for.
	args.Disable("disable-admission-plugins")
	if !o.AllAPIGroups {
		args.Set("runtime-config", strings.Join(replacedGroups, "=false,")+"=false")
		args.Set("disable-admission-plugins", strings.Join(replacedAdmission, ","))
	}
	if o.AuditPolicyFile != "" {
		setAll(args, map[string]string{
			"audit-policy-file":   o.AuditPolicyFile,
			"audit-log-path":      l.path("log", "audit.log"),
			"audit-log-maxsize":   "50", // MB
			"audit-log-maxbackup": "3",
		})
	}
	setAll(args, o.ExtraAPIServerArgs)
	return server
}

// serverFiles are the configuration files of kube-apiserver.
type serverFiles struct{ encryption, authentication string }

// advertiseAddress keeps kube-apiserver from looking for a default route,
// which a machine without a network does not have.
func (o Options) advertiseAddress() string {
	host := strings.TrimPrefix(o.clientHost(), "https://")
	return strings.Trim(host[:strings.LastIndex(host, ":")], "[]")
}

// controllerManagerArgs are the flags of kube-controller-manager for the given
// loops. signer names the authority's files; without, none is given.
func controllerManagerArgs(controllers []string, kubeconfig, rootCA, saKey, signerCert, signerKey string) []string {
	args := []string{
		"--kubeconfig=" + kubeconfig,
		"--controllers=" + strings.Join(controllers, ","),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + saKey,
		"--root-ca-file=" + rootCA,
		// One process of its kind, supervised: it needs no election, and no port.
		"--leader-elect=false",
		"--secure-port=0",
		"--profiling=false",
		"--kube-api-qps=50",
		"--kube-api-burst=100",
	}
	if signerCert != "" {
		args = append(args, "--cluster-signing-cert-file="+signerCert, "--cluster-signing-key-file="+signerKey)
	}
	return args
}

func setAll(args *envtest.Arguments, values map[string]string) {
	for name, value := range values {
		args.Set(name, value)
	}
}

// ourEtcd tells whether a command line is that of etcd on this data folder;
// the other two likewise. They must stay in step with the flags above.
func (l layout) ours(process string) func([]string) bool {
	marker := map[string]string{
		Etcd:              "--data-dir=" + l.etcdData(),
		APIServer:         "--cert-dir=" + l.pki(),
		ControllerManager: "--kubeconfig=" + l.kubeconfig(ControllerManager),
	}[process]
	return func(line []string) bool {
		for i, arg := range line {
			if arg == marker {
				return i > 0 && filepath.Base(line[0]) == process
			}
		}
		return false
	}
}

// startScript is what envtest runs in place of the program. envtest can set no
// environment and tells nobody the process id, so the script does: exec keeps
// both for the program. It answers --help with nothing, which envtest asks
// twice at each start to learn which flags an old version has; ours are pinned.
//
// setpriv lets the kernel end the program when this one dies without a word.
func startScript(program, pidFile, gogc string) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return fmt.Sprintf(`#!/bin/sh
# Written at each start of the control plane: what is changed here is lost.
[ "$1" = --help ] && exit 0
cat "/proc/$$/stat" > %[2]s || exit 1
export GOGC=%[3]s
if setpriv --pdeathsig KILL true 2> /dev/null; then
	exec setpriv --pdeathsig KILL -- %[1]s "$@"
fi
exec %[1]s "$@"
`, quote(program), quote(pidFile), quote(gogc))
}
