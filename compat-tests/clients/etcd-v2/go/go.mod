module client

go 1.26.0

require github.com/coreos/etcd v3.3.27+incompatible

require (
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/modern-go/concurrent v0.0.0-20180228061459-e0a39a4cb421 // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
)
