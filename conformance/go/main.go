// Uses AWS as any Go program does, knowing nothing of Deputize: its credentials come from wherever the SDK's own chain
// finds them (a container's endpoint, a process of the shared configuration).
//
// Arguments: how often, then the ids of instances. It tries to restart each, asks who it is, and prints what came of it
// as one JSON object. Where HANDED_URI and HANDED_AUTHORIZATION are set, its credentials are those of the request with
// these headers, as docs/aws.md has it.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "how often?")
		os.Exit(2)
	}
	said, err := run(context.Background(), os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, times string, instances []string) (map[string]any, error) {
	often, err := strconv.Atoi(times)
	if err != nil {
		return nil, err
	}
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	if uri := os.Getenv("HANDED_URI"); uri != "" {
		settings.Credentials = ofThisCall(handed(uri, os.Getenv("HANDED_AUTHORIZATION")))
	}
	restarts := make([]string, 0, often*len(instances))
	for range often {
		for _, instance := range instances {
			answer, err := restart(ctx, settings, instance)
			if err != nil {
				return nil, err
			}
			restarts = append(restarts, answer)
		}
	}
	who, err := sts.NewFromConfig(settings).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	return map[string]any{"arn": *who.Arn, "restarts": restarts}, nil
}

// A request as a guard hands it to its server.
func handed(uri, authorization string) *http.Request {
	request := &http.Request{Header: http.Header{}}
	request.Header.Set("Deputize-Aws-Credentials-Uri", uri)
	request.Header.Set("Deputize-Aws-Authorization", authorization)
	return request
}

// The EC2 module alone takes longer to compile than all else here, so this one request is written by hand, and signed by
// the SDK with the credentials that it holds. Gives back "ok", or the code of the refusal.
func restart(ctx context.Context, settings aws.Config, instance string) (string, error) {
	form := url.Values{"Action": {"RebootInstances"}, "Version": {"2016-11-15"}, "InstanceId.1": {instance}}
	body := []byte(form.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("AWS_ENDPOINT_URL"), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	credentials, err := settings.Credentials.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(body)
	hash, now := hex.EncodeToString(digest[:]), time.Now()
	if err := v4.NewSigner().SignHTTP(ctx, credentials, request, hash, "ec2", settings.Region, now); err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if answer.StatusCode == http.StatusOK {
		return "ok", nil
	}
	code := regexp.MustCompile("<Code>([^<]+)</Code>").FindSubmatch(content)
	if code == nil {
		return "", fmt.Errorf("%s: %s", answer.Status, content)
	}
	return string(code[1]), nil
}
