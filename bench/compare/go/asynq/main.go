// Asynq on Redis.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"github.com/windlass-rs/windlass/bench/compare/go/protocol"
)

const (
	queue = "default"
	kind  = "compare"
	// It has no call for many tasks.
	callers = 100
)

type peer struct {
	redis  asynq.RedisClientOpt
	client *asynq.Client
}

func (peer) Prepare(context.Context) error { return nil }

func (p peer) Enqueue(ctx context.Context, jobs []protocol.Job) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callers)
	for _, job := range jobs {
		group.Go(func() error {
			payload, err := json.Marshal(job)
			if err != nil {
				return err
			}
			_, err = p.client.EnqueueContext(ctx, asynq.NewTask(kind, payload))
			return err
		})
	}
	return group.Wait()
}

type worker struct {
	server    *asynq.Server
	inspector *asynq.Inspector
}

func (p peer) Work(_ context.Context, record func(protocol.Job)) (protocol.Worker, error) {
	server := asynq.NewServer(p.redis, asynq.Config{
		Concurrency: 100,
		// An empty queue is polled; with the default of a second, that would be the latency.
		TaskCheckInterval: time.Millisecond,
		LogLevel:          asynq.WarnLevel,
	})
	handler := func(_ context.Context, task *asynq.Task) error {
		var job protocol.Job
		if err := json.Unmarshal(task.Payload(), &job); err != nil {
			return fmt.Errorf("%w: %w", err, asynq.SkipRetry)
		}
		record(job)
		return nil
	}
	return worker{server, asynq.NewInspector(p.redis)}, server.Start(asynq.HandlerFunc(handler))
}

func (w worker) Unfinished(context.Context) (bool, error) {
	info, err := w.info()
	return info.Pending+info.Active+info.Retry > 0, err
}

func (w worker) Kept(context.Context) (int, error) {
	info, err := w.info()
	return info.Completed, err
}

func (w worker) info() (asynq.QueueInfo, error) {
	info, err := w.inspector.GetQueueInfo(queue)
	if err != nil {
		return asynq.QueueInfo{}, err
	}
	return *info, nil
}

func (w worker) Stop(context.Context) error {
	w.server.Shutdown()
	return w.inspector.Close()
}

func main() {
	protocol.Main(func() (protocol.Peer, error) {
		text, err := protocol.Variable("REDIS_URL")
		if err != nil {
			return nil, err
		}
		// Its own parser leaves out the user.
		parsed, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		password, ok := parsed.User.Password()
		if !ok {
			return nil, errors.New("REDIS_URL has no password")
		}
		redis := asynq.RedisClientOpt{
			Addr: parsed.Host, Username: parsed.User.Username(), Password: password, PoolSize: callers,
		}
		return peer{redis, asynq.NewClient(redis)}, nil
	})
}
