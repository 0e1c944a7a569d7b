package main

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

// AWS SDK for Go v2
func ofThisCall(r *http.Request) aws.CredentialsProvider {
	uri, secret := r.Header.Get("Deputize-Aws-Credentials-Uri"), r.Header.Get("Deputize-Aws-Authorization")
	return aws.NewCredentialsCache(endpointcreds.New(uri, func(o *endpointcreds.Options) {
		o.AuthorizationToken = secret
	}))
}
