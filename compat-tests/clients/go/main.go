// Does with clientv3 what services do: configuration, discovery, a lock and an election.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func main() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(os.Getenv("ENDPOINTS"), ","),
		DialTimeout: 5 * time.Second,
	})
	if err != nil {
		panic(err)
	}
	defer client.Close()
	jobs := []struct {
		name string
		run  func(context.Context, *clientv3.Client) error
	}{
		{"configuration", configuration},
		{"transaction", transaction},
		{"discovery", discovery},
		{"lock", lock},
		{"election", election},
	}
	passed, failed := 0, 0
	for _, job := range jobs {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := job.run(ctx, client); err != nil {
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

// configuration is read, then watched from the revision after the read: nothing is missed.
func configuration(ctx context.Context, client *clientv3.Client) error {
	if _, err := client.Put(ctx, "go/config/level", "info"); err != nil {
		return err
	}
	read, err := client.Get(ctx, "go/config/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if len(read.Kvs) != 1 || string(read.Kvs[0].Value) != "info" {
		return fmt.Errorf("read %v", read.Kvs)
	}
	changes := client.Watch(ctx, "go/config/", clientv3.WithPrefix(),
		clientv3.WithRev(read.Header.Revision+1), clientv3.WithPrevKV())
	for _, level := range []string{"warn", "debug"} {
		if _, err := client.Put(ctx, "go/config/level", level); err != nil {
			return err
		}
	}
	seen := ""
	for change := range changes {
		if err := change.Err(); err != nil {
			return err
		}
		for _, event := range change.Events {
			seen += string(event.PrevKv.Value) + ">" + string(event.Kv.Value) + " "
		}
		if strings.HasSuffix(seen, "debug ") {
			break
		}
	}
	if seen != "info>warn warn>debug " {
		return fmt.Errorf("saw %q", seen)
	}
	return nil
}

// transaction is compare-and-swap, once with the right revision and once with a stale one.
func transaction(ctx context.Context, client *clientv3.Client) error {
	put, err := client.Put(ctx, "go/counter", "1")
	if err != nil {
		return err
	}
	swap := func(to string) (bool, error) {
		txn, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision("go/counter"), "=", put.Header.Revision)).
			Then(clientv3.OpPut("go/counter", to)).
			Else(clientv3.OpGet("go/counter")).
			Commit()
		return err == nil && txn.Succeeded, err
	}
	if done, err := swap("2"); err != nil || !done {
		return fmt.Errorf("the first swap: %v, %v", done, err)
	}
	if done, err := swap("3"); err != nil || done {
		return fmt.Errorf("the stale swap: %v, %v", done, err)
	}
	return nil
}

// discovery registers a service under a lease that is kept alive, and sees it go.
func discovery(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 5)
	if err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, "go/services/web/1", "10.0.0.1:80", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	if beat := <-alive; beat == nil || beat.TTL != 5 {
		return fmt.Errorf("keep-alive %v", beat)
	}
	found, err := client.Get(ctx, "go/services/web/", clientv3.WithPrefix())
	if err != nil || len(found.Kvs) != 1 {
		return fmt.Errorf("found %v, %v", found, err)
	}
	gone := client.Watch(ctx, "go/services/web/", clientv3.WithPrefix(),
		clientv3.WithRev(found.Header.Revision+1))
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	change := <-gone
	if len(change.Events) != 1 || change.Events[0].Type != clientv3.EventTypeDelete {
		return fmt.Errorf("saw %v", change.Events)
	}
	return nil
}

// lock lets five contenders increment a counter that only the lock protects.
func lock(ctx context.Context, client *clientv3.Client) error {
	counter := 0
	errors := make(chan error)
	for range 5 {
		go func() {
			errors <- func() error {
				session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
				if err != nil {
					return err
				}
				defer session.Close()
				mutex := concurrency.NewMutex(session, "go/lock")
				if err := mutex.Lock(ctx); err != nil {
					return err
				}
				before := counter
				time.Sleep(10 * time.Millisecond)
				counter = before + 1
				return mutex.Unlock(ctx)
			}()
		}()
	}
	for range 5 {
		if err := <-errors; err != nil {
			return err
		}
	}
	if counter != 5 {
		return fmt.Errorf("the counter is %d", counter)
	}
	return nil
}

// election hands leadership from one candidate to the next.
func election(ctx context.Context, client *clientv3.Client) error {
	first, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer second.Close()
	one := concurrency.NewElection(first, "go/election")
	two := concurrency.NewElection(second, "go/election")
	if err := one.Campaign(ctx, "one"); err != nil {
		return err
	}
	won := make(chan error, 1)
	go func() { won <- two.Campaign(ctx, "two") }()
	leader, err := two.Leader(ctx)
	if err != nil || string(leader.Kvs[0].Value) != "one" {
		return fmt.Errorf("the first leader is %v, %v", leader, err)
	}
	if err := one.Resign(ctx); err != nil {
		return err
	}
	if err := <-won; err != nil {
		return err
	}
	leader, err = one.Leader(ctx)
	if err != nil || string(leader.Kvs[0].Value) != "two" {
		return fmt.Errorf("the second leader is %v, %v", leader, err)
	}
	return two.Resign(ctx)
}
