module suite

go 1.22

require github.com/coreos/go-etcd v2.0.0+incompatible
