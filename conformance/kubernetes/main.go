// Builds a folder of Kustomize as `kubectl kustomize` does, with the same library, and prints one resource a line: JSON,
// which is YAML too. (The program of that name costs eight times the build of this one.)
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: kustomize FOLDER"))
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), os.Args[1])
	if err != nil {
		fail(err)
	}
	lines := json.NewEncoder(os.Stdout)
	for _, resource := range built.Resources() {
		object, err := resource.Map()
		if err != nil {
			fail(err)
		}
		if err := lines.Encode(object); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
