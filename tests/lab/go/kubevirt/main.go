// Copyright (c) 2026 the gpufleet.kubevirt authors
// GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Command kubelab-kubevirt prints, as one JSON list, what KubeVirt's operator
// would install and the lab needs: the CustomResourceDefinitions or, given the
// URL and the CA of a virt-api that runs as a plain process, its admission
// webhooks. All of it comes from the operator's own Go package.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	extensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
)

func main() {
	url := flag.String("webhook-url", "", "base URL of virt-api, such as https://127.0.0.1:8443")
	ca := flag.String("ca", "", "file with the CA of virt-api's certificate")
	flag.Parse()
	var objects []any
	var err error
	if *url == "" {
		objects, err = definitions()
	} else {
		objects, err = webhooks(*url, *ca)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelab-kubevirt:", err)
		os.Exit(1)
	}
}

// webhooks are virt-api's, with their Service replaced by the URL.
func webhooks(url, ca string) ([]any, error) {
	bundle, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	local := func(c *admissionv1.WebhookClientConfig) {
		u := url + *c.Service.Path
		*c = admissionv1.WebhookClientConfig{URL: &u, CABundle: bundle}
	}
	validating := components.NewVirtAPIValidatingWebhookConfiguration("kubevirt")
	for i := range validating.Webhooks {
		local(&validating.Webhooks[i].ClientConfig)
	}
	mutating := components.NewVirtAPIMutatingWebhookConfiguration("kubevirt")
	for i := range mutating.Webhooks {
		local(&mutating.Webhooks[i].ClientConfig)
	}
	return []any{validating, mutating}, nil
}

func definitions() ([]any, error) {
	var objects []any
	for _, definition := range []func() (*extensionsv1.CustomResourceDefinition, error){
		components.NewKubeVirtCrd,
		components.NewVirtualMachineCrd,
		components.NewVirtualMachineInstanceCrd,
		components.NewVirtualMachineInstanceMigrationCrd,
		components.NewPresetCrd,
		components.NewReplicaSetCrd,
		components.NewVirtualMachinePoolCrd,
		components.NewVirtualMachineSnapshotCrd,
		components.NewVirtualMachineSnapshotContentCrd,
		components.NewVirtualMachineRestoreCrd,
		components.NewVirtualMachineExportCrd,
		components.NewVirtualMachineCloneCrd,
		components.NewVirtualMachineInstancetypeCrd,
		components.NewVirtualMachineClusterInstancetypeCrd,
		components.NewVirtualMachinePreferenceCrd,
		components.NewVirtualMachineClusterPreferenceCrd,
		components.NewMigrationPolicyCrd,
	} {
		crd, err := definition()
		if err != nil {
			return nil, err
		}
		crd.Status = extensionsv1.CustomResourceDefinitionStatus{}
		objects = append(objects, crd)
	}
	return objects, nil
}
