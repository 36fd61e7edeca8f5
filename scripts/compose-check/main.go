// Checks a Compose file as Docker Compose does before it asks an engine for anything: its form, its variables, and that
// what it refers to is there.
package main

import (
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithProfiles([]string{"*"}))
	if err == nil {
		_, err = cli.ProjectFromOptions(options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
