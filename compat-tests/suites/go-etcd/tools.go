// Package suite asks the module proxy for the module whose tests are run.
package suite

import _ "github.com/coreos/go-etcd/etcd"
