// Package protocol is what the peers in Go have in common: see "The protocol" in ../../README.md.
package protocol

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	payloadBytes = 200
	batch        = 1000
)

// Job is the payload, 200 bytes as JSON.
type Job struct {
	Job  int    `json:"job"`
	Sent int64  `json:"sent"`
	Pad  string `json:"pad"`
}

func newJob(number int) Job {
	sent := time.Now().UnixMicro()
	bare := len(fmt.Sprintf(`{"job":%d,"sent":%d,"pad":""}`, number, sent))
	return Job{Job: number, Sent: sent, Pad: strings.Repeat("x", payloadBytes-bare)}
}

// Peer is a job system under measurement.
type Peer interface {
	// Prepare makes the tables, in a database of its own.
	Prepare(ctx context.Context) error
	// Enqueue accepts these, by the quickest way there is for so many.
	Enqueue(ctx context.Context, jobs []Job) error
	// Work starts a worker, which calls record for each run of a job.
	Work(ctx context.Context, record func(Job)) (Worker, error)
}

// Worker is one that runs.
type Worker interface {
	// Unfinished says whether any job is left whose outcome is not recorded.
	Unfinished(ctx context.Context) (bool, error)
	// Kept counts the jobs that are over and still known.
	Kept(ctx context.Context) (int, error)
	// Stop ends it in good order.
	Stop(ctx context.Context) error
}

// Main does what the arguments ask for.
func Main(connect func() (Peer, error)) {
	slog.SetDefault(Logger())
	peer, err := connect()
	if err == nil {
		err = run(context.Background(), peer, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Logger writes warnings to standard error, since standard output has the answers.
func Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Variable is an environment variable that must be set.
func Variable(name string) (string, error) {
	value := os.Getenv(name)
	if value == "" {
		return "", fmt.Errorf("%s is not set", name)
	}
	return value, nil
}

func run(ctx context.Context, peer Peer, arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "prepare" {
		return peer.Prepare(ctx)
	}
	numbers := make([]int, 0, 2)
	for _, argument := range arguments[min(1, len(arguments)):] {
		number, err := strconv.Atoi(argument)
		if err != nil || number < 0 {
			return fmt.Errorf("%q is not a count", argument)
		}
		numbers = append(numbers, number)
	}
	switch {
	case len(numbers) == 2 && arguments[0] == "enqueue":
		return enqueue(ctx, peer, numbers[0], numbers[1])
	case len(numbers) == 1 && arguments[0] == "work":
		return work(ctx, peer, numbers[0])
	}
	return errors.New("usage: prepare | enqueue JOBS RATE | work JOBS")
}

func enqueue(ctx context.Context, peer Peer, jobs, rate int) error {
	began := time.Now()
	size := batch
	if rate > 0 {
		size = 1
	}
	for first := 0; first < jobs; first += size {
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(first) * time.Second / time.Duration(rate))))
		}
		group := make([]Job, 0, size)
		for number := first; number < min(first+size, jobs); number++ {
			group = append(group, newJob(number))
		}
		if err := peer.Enqueue(ctx, group); err != nil {
			return err
		}
	}
	return answer(map[string]int64{"began": began.UnixMicro(), "ended": time.Now().UnixMicro()})
}

func work(ctx context.Context, peer Peer, jobs int) error {
	tally := &tally{started: make([]atomic.Int64, jobs), latency: make([]int64, jobs)}
	worker, err := peer.Work(ctx, tally.record)
	if err != nil {
		return err
	}
	if err := answer(map[string]bool{"ready": true}); err != nil {
		return err
	}
	for tally.distinct.Load() < int64(jobs) {
		time.Sleep(2 * time.Millisecond)
	}
	for {
		unfinished, err := worker.Unfinished(ctx)
		if err != nil {
			return err
		}
		if !unfinished {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	result := tally.result(time.Now().UnixMicro())
	kept, err := worker.Kept(ctx)
	if err != nil {
		return err
	}
	result["kept"] = int64(kept)
	if err := answer(result); err != nil {
		return err
	}
	// Until it is closed, the memory of this process is looked at.
	if _, err := io.Copy(io.Discard, bufio.NewReader(os.Stdin)); err != nil {
		return err
	}
	return worker.Stop(ctx)
}

type tally struct {
	// When each job first started; 0 while it has not.
	started        []atomic.Int64
	latency        []int64
	runs, distinct atomic.Int64
}

func (t *tally) record(job Job) {
	now := time.Now().UnixMicro()
	t.runs.Add(1)
	if job.Job >= 0 && job.Job < len(t.started) && t.started[job.Job].CompareAndSwap(0, now) {
		t.latency[job.Job] = now - job.Sent
		t.distinct.Add(1)
	}
}

func (t *tally) result(finished int64) map[string]int64 {
	starts := make([]int64, len(t.started))
	for i := range t.started {
		starts[i] = t.started[i].Load()
	}
	slices.Sort(t.latency)
	return map[string]int64{
		"first":    slices.Min(starts),
		"last":     slices.Max(starts),
		"finished": finished,
		"runs":     t.runs.Load(),
		"p50":      t.latency[len(t.latency)/2],
		"p99":      t.latency[len(t.latency)*99/100],
	}
}

func answer(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
