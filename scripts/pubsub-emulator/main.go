// The Pub/Sub server of the tests: Google's fake of the service, from their Go client library, on an address that
// lasts. It keeps everything in memory.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"time"

	"cloud.google.com/go/pubsub/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

const (
	// How long a pull waits for messages. The service waits for longer.
	patience = 20 * time.Second
	// How often a waiting pull looks.
	look = 5 * time.Millisecond
)

func main() {
	address := flag.String("address", "127.0.0.1:8085", "where to listen")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	// It listens on a port of its own as well, which nobody is told of.
	fake := pstest.NewServer()
	server := grpc.NewServer()
	pubsubpb.RegisterPublisherServer(server, &fake.GServer)
	pubsubpb.RegisterSubscriberServer(server, subscriber{&fake.GServer})
	log.Printf("listening on %s", listener.Addr())
	log.Fatal(server.Serve(listener))
}

// subscriber answers a waiting pull when a message comes, as the service does. The fake on its own looks twice, half a
// second apart.
type subscriber struct{ *pstest.GServer }

func (s subscriber) Pull(ctx context.Context, request *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	wait := !request.ReturnImmediately
	request.ReturnImmediately = true
	for deadline := time.Now().Add(patience); ; {
		response, err := s.GServer.Pull(ctx, request)
		if err != nil || len(response.ReceivedMessages) > 0 || !wait || time.Now().After(deadline) {
			return response, err
		}
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(look):
		}
	}
}
