// River on Postgres, with its pgx driver.
package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/windlass-rs/windlass/bench/compare/go/protocol"
)

type args struct{ protocol.Job }

func (args) Kind() string { return "compare" }

type handler struct {
	river.WorkerDefaults[args]
	record func(protocol.Job)
}

func (h *handler) Work(_ context.Context, job *river.Job[args]) error {
	h.record(job.Args.Job)
	return nil
}

type peer struct{ pool *pgxpool.Pool }

func (p peer) Prepare(ctx context.Context) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(p.pool), &rivermigrate.Config{Logger: protocol.Logger()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (p peer) Enqueue(ctx context.Context, jobs []protocol.Job) error {
	client, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{Logger: protocol.Logger()})
	if err != nil {
		return err
	}
	if len(jobs) == 1 {
		_, err = client.Insert(ctx, args{jobs[0]}, nil)
		return err
	}
	params := make([]river.InsertManyParams, 0, len(jobs))
	for _, job := range jobs {
		params = append(params, river.InsertManyParams{Args: args{job}})
	}
	_, err = client.InsertManyFast(ctx, params)
	return err
}

type worker struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

func (p peer) Work(ctx context.Context, record func(protocol.Job)) (protocol.Worker, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &handler{record: record})
	client, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		// The three numbers are those of River's own benchmark, whose comments say that they are much better than the
		// defaults.
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Logger:            protocol.Logger(),
		Workers:           workers,
	})
	if err != nil {
		return nil, err
	}
	return worker{p.pool, client}, client.Start(ctx)
}

func (w worker) Unfinished(ctx context.Context) (unfinished bool, err error) {
	err = w.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running', 'retryable'))").
		Scan(&unfinished)
	return unfinished, err
}

func (w worker) Kept(ctx context.Context) (kept int, err error) {
	err = w.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&kept)
	return kept, err
}

func (w worker) Stop(ctx context.Context) error {
	defer w.pool.Close()
	return w.client.Stop(ctx)
}

func main() {
	protocol.Main(func() (protocol.Peer, error) {
		url, err := protocol.Variable("DATABASE_URL")
		if err != nil {
			return nil, err
		}
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		// Some for the fetching, some for the completer, and one that listens.
		config.MaxConns = 10
		pool, err := pgxpool.NewWithConfig(context.Background(), config)
		return peer{pool}, err
	})
}
