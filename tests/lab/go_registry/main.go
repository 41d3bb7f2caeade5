// SPDX-FileCopyrightText: 2026 the gpufleet.kubevirt authors
// SPDX-License-Identifier: GPL-3.0-or-later

// The lab's OCI registry: the real one of the CNCF (Distribution), with a directory as storage and a password file, and nothing else of it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	var err error
	if len(os.Args) == 3 && os.Args[1] == "htpasswd" {
		err = htpasswd(os.Args[2])
	} else {
		err = registry.RootCmd.Execute()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// htpasswd prints the line of a password file for a user, whose password stands on standard input.
func htpasswd(user string) error {
	password, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(strings.TrimSuffix(password, "\n")), bcrypt.MinCost)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s:%s\n", user, hash)
	return err
}
