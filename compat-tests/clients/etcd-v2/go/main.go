// Go's client of etcd v2 does a short real job against ENDPOINTS.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/etcd/client"
)

const deadline = 30 * time.Second

var endpoints = strings.Split(os.Getenv("ENDPOINTS"), ",")

func main() {
	passed, failed := 0, 0
	jobs := []struct {
		name string
		run  func(context.Context) error
	}{
		{"configuration", configuration},
		{"conditions", conditions},
		{"queue", queue},
		{"discovery", discovery},
		{"lock", lock},
		{"members", members},
		{"users", users},
	}
	for _, job := range jobs {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		if err := job.run(ctx); err != nil {
			fmt.Printf("FAIL %s: %v\n", job.name, err)
			failed++
		} else {
			passed++
		}
		cancel()
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func connect() client.Client {
	c, err := client.New(client.Config{Endpoints: endpoints, HeaderTimeoutPerRequest: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	return c
}

func keys() client.KeysAPI { return client.NewKeysAPI(connect()) }

func want(what string, got, wanted interface{}) error {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		return fmt.Errorf("%s: got %v, wanted %v", what, got, wanted)
	}
	return nil
}

// code is the one of etcd's error, or 0.
func code(err error) int {
	if e, ok := err.(client.Error); ok {
		return e.Code
	}
	return 0
}

// A tree is written, listed and watched.
func configuration(ctx context.Context) error {
	kv := keys()
	defer kv.Delete(ctx, "/go", &client.DeleteOptions{Recursive: true})
	set, err := kv.Set(ctx, "/go/config/level", "info", nil)
	if err != nil {
		return err
	}
	if err := want("action", set.Action, "set"); err != nil {
		return err
	}
	events := kv.Watcher("/go/config", &client.WatcherOptions{AfterIndex: set.Index, Recursive: true})
	if _, err := kv.Update(ctx, "/go/config/level", "warn"); err != nil {
		return err
	}
	if _, err := kv.Delete(ctx, "/go/config/level", nil); err != nil {
		return err
	}
	for _, action := range []string{"update", "delete"} {
		event, err := events.Next(ctx)
		if err != nil {
			return err
		}
		if err := want("event", event.Action, action); err != nil {
			return err
		}
	}
	if _, err := kv.Create(ctx, "/go/config/b", "2"); err != nil {
		return err
	}
	if _, err := kv.Create(ctx, "/go/config/a", "1"); err != nil {
		return err
	}
	tree, err := kv.Get(ctx, "/go", &client.GetOptions{Recursive: true, Sort: true, Quorum: true})
	if err != nil {
		return err
	}
	return want("first", tree.Node.Nodes[0].Nodes[0].Key, "/go/config/a")
}

// Compare-and-swap, compare-and-delete, and the errors that they end in.
func conditions(ctx context.Context) error {
	kv := keys()
	defer kv.Delete(ctx, "/go", &client.DeleteOptions{Recursive: true})
	made, err := kv.Create(ctx, "/go/counter", "1")
	if err != nil {
		return err
	}
	if _, err := kv.Create(ctx, "/go/counter", "1"); code(err) != client.ErrorCodeNodeExist {
		return fmt.Errorf("created twice: %v", err)
	}
	swap := &client.SetOptions{PrevValue: "1", PrevIndex: made.Node.ModifiedIndex}
	if _, err := kv.Set(ctx, "/go/counter", "2", swap); err != nil {
		return err
	}
	if _, err := kv.Set(ctx, "/go/counter", "2", swap); code(err) != client.ErrorCodeTestFailed {
		return fmt.Errorf("swapped twice: %v", err)
	}
	if _, err := kv.Delete(ctx, "/go/counter", &client.DeleteOptions{PrevValue: "2"}); err != nil {
		return err
	}
	if _, err := kv.Get(ctx, "/go/counter", nil); !client.IsKeyNotFound(err) {
		return fmt.Errorf("still there: %v", err)
	}
	_, err = kv.Watcher("/go", &client.WatcherOptions{AfterIndex: 1, Recursive: true}).Next(ctx)
	if err != nil && code(err) != client.ErrorCodeEventIndexCleared {
		return err
	}
	return nil
}

// Children in order are taken in order.
func queue(ctx context.Context) error {
	kv := keys()
	defer kv.Delete(ctx, "/go", &client.DeleteOptions{Recursive: true})
	for i := 0; i < 10; i++ {
		if _, err := kv.CreateInOrder(ctx, "/go/queue", fmt.Sprint(i), nil); err != nil {
			return err
		}
	}
	listed, err := kv.Get(ctx, "/go/queue", &client.GetOptions{Sort: true, Quorum: true})
	if err != nil {
		return err
	}
	for i, node := range listed.Node.Nodes {
		if err := want("place", node.Value, i); err != nil {
			return err
		}
	}
	return want("length", len(listed.Node.Nodes), 10)
}

// A service is there while it is refreshed.
func discovery(ctx context.Context) error {
	kv := keys()
	defer kv.Delete(ctx, "/go", &client.DeleteOptions{Recursive: true})
	at, err := kv.Set(ctx, "/go/services/web", "10.0.0.1:80", &client.SetOptions{TTL: 2 * time.Second})
	if err != nil {
		return err
	}
	refresh := &client.SetOptions{TTL: 2 * time.Second, Refresh: true, PrevExist: client.PrevExist}
	if _, err := kv.Set(ctx, "/go/services/web", "", refresh); err != nil {
		return err
	}
	events := kv.Watcher("/go/services", &client.WatcherOptions{AfterIndex: at.Index, Recursive: true})
	end, err := events.Next(ctx)
	if err != nil {
		return err
	}
	if err := want("event", end.Action, "expire"); err != nil {
		return err
	}
	return want("value", end.PrevNode.Value, "10.0.0.1:80")
}

// A lock made of a key that one creates and the others wait for.
func lock(ctx context.Context) error {
	counter := 0
	var all sync.WaitGroup
	errs := make(chan error, 4)
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			kv := keys()
			for {
				own := &client.SetOptions{PrevExist: client.PrevNoExist, TTL: 20 * time.Second}
				_, err := kv.Set(ctx, "/go-lock", "held", own)
				if err == nil {
					break
				}
				held, ok := err.(client.Error)
				if !ok || held.Code != client.ErrorCodeNodeExist {
					errs <- err
					return
				}
				next := kv.Watcher("/go-lock", &client.WatcherOptions{AfterIndex: held.Index})
				if _, err := next.Next(ctx); err != nil {
					errs <- err
					return
				}
			}
			before := counter
			time.Sleep(10 * time.Millisecond)
			counter = before + 1
			if _, err := kv.Delete(ctx, "/go-lock", nil); err != nil {
				errs <- err
			}
		}()
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return want("counter", counter, 4)
	}
}

// The client finds all members through one of them.
func members(ctx context.Context) error {
	c := connect()
	if err := c.Sync(ctx); err != nil {
		return err
	}
	if err := want("endpoints", len(c.Endpoints()), len(endpoints)); err != nil {
		return err
	}
	leader, err := client.NewMembersAPI(c).Leader(ctx)
	if err != nil {
		return err
	}
	if _, err := url.Parse(leader.ClientURLs[0]); err != nil {
		return err
	}
	version, err := c.GetVersion(ctx)
	if err != nil {
		return err
	}
	if version.Server == "" || version.Cluster == "" {
		return fmt.Errorf("version: %v", version)
	}
	return nil
}

// Users and roles.
func users(ctx context.Context) error {
	c := connect()
	roles, people := client.NewAuthRoleAPI(c), client.NewAuthUserAPI(c)
	if err := roles.AddRole(ctx, "go-reader"); err != nil {
		return err
	}
	defer roles.RemoveRole(ctx, "go-reader")
	if _, err := roles.GrantRoleKV(ctx, "go-reader", []string{"/go/*"}, client.ReadPermission); err != nil {
		return err
	}
	if err := people.AddUser(ctx, "go-alice", "secret"); err != nil {
		return err
	}
	defer people.RemoveUser(ctx, "go-alice")
	alice, err := people.GrantUser(ctx, "go-alice", []string{"go-reader"})
	if err != nil {
		return err
	}
	return want("roles", alice.Roles, []string{"go-reader"})
}
