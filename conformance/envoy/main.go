// Asks for secrets as Envoy does: with Envoy's own messages, over the socket that it is given, with the header of the
// Workload API as Envoy's `initial_metadata` has it, or without it for `bare` as third argument.
//
// It reads one command a line: `ask NAME...` subscribes to these secrets, `refuse` makes it refuse the next answer, `fetch
// NAME...` asks once. It prints what it hears, one JSON object a line, and acknowledges it, unless it was told to refuse.
// An ended stream is told as {"ended": CODE}; the next `ask` opens another.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

type client struct {
	// With what goes along with every call.
	context context.Context
	service secret.SecretDiscoveryServiceClient
	node    *core.Node

	mutex  sync.Mutex
	stream secret.SecretDiscoveryService_StreamSecretsClient
	last   *discovery.DiscoveryResponse
	names  []string
	refuse bool
}

func main() {
	if len(os.Args) != 3 && !(len(os.Args) == 4 && os.Args[3] == "bare") {
		fmt.Fprintln(os.Stderr, "the endpoint (unix:PATH), the minor version of the Envoy to be, and perhaps bare")
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var minor uint32
	if _, err := fmt.Sscan(os.Args[2], &minor); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	c := &client{context: context.Background(), service: secret.NewSecretDiscoveryServiceClient(connection), node: envoy(minor)}
	if len(os.Args) == 3 {
		c.context = metadata.AppendToOutgoingContext(c.context, "workload.spiffe.io", "true")
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "ask":
			c.ask(words[1:])
		case "refuse":
			c.mutex.Lock()
			c.refuse = true
			c.mutex.Unlock()
		case "fetch":
			request := &discovery.DiscoveryRequest{ResourceNames: words[1:], TypeUrl: secretType}
			answer, err := c.service.FetchSecrets(c.context, request)
			if err != nil {
				ended(err)
			} else {
				heard(answer)
			}
		}
	}
}

// As a real one says it: with everything that it is built of.
func envoy(minor uint32) *core.Node {
	version := &core.BuildVersion{Version: &types.SemanticVersion{MajorNumber: 1, MinorNumber: minor}}
	node := &core.Node{
		Id: "proxy", Cluster: "web", UserAgentName: "envoy",
		UserAgentVersionType: &core.Node_UserAgentBuildVersion{UserAgentBuildVersion: version},
	}
	for number := range 600 {
		name := fmt.Sprintf("envoy.filters.http.extension_number_%d", number)
		node.Extensions = append(node.Extensions, &core.Extension{Name: name, Category: "envoy.filters.http"})
	}
	return node
}

func (c *client) ask(names []string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.names = names
	if c.stream == nil {
		stream, err := c.service.StreamSecrets(c.context)
		if err != nil {
			ended(err)
			return
		}
		c.stream, c.last = stream, nil
		go c.listen(stream)
	}
	request := &discovery.DiscoveryRequest{ResourceNames: names, TypeUrl: secretType}
	if c.last == nil {
		request.Node = c.node
	} else {
		request.VersionInfo, request.ResponseNonce = c.last.VersionInfo, c.last.Nonce
	}
	// What is wrong with it, the stream says when it is listened to.
	_ = c.stream.Send(request)
}

func (c *client) listen(stream secret.SecretDiscoveryService_StreamSecretsClient) {
	for {
		answer, err := stream.Recv()
		if err != nil {
			c.mutex.Lock()
			c.stream = nil
			c.mutex.Unlock()
			ended(err)
			return
		}
		c.answer(stream, answer)
		heard(answer)
	}
}

func (c *client) answer(stream secret.SecretDiscoveryService_StreamSecretsClient, answer *discovery.DiscoveryResponse) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	reply := &discovery.DiscoveryRequest{ResourceNames: c.names, TypeUrl: secretType, ResponseNonce: answer.Nonce}
	if c.refuse {
		reply.ErrorDetail = &rpc.Status{Code: int32(codes.InvalidArgument), Message: "refused on purpose"}
		if c.last != nil {
			reply.VersionInfo = c.last.VersionInfo
		}
		c.refuse = false
	} else {
		reply.VersionInfo = answer.VersionInfo
	}
	c.last = answer
	_ = stream.Send(reply)
}

func ended(err error) {
	tell(map[string]any{"ended": status.Code(err).String()})
}

// Everything that an answer holds, as far as it can be told without showing a key.
func heard(answer *discovery.DiscoveryResponse) {
	secrets := map[string]any{}
	for _, packed := range answer.Resources {
		one := &tls.Secret{}
		if packed.TypeUrl != secretType || answer.TypeUrl != secretType {
			secrets["wrong type"] = packed.TypeUrl
		} else if err := packed.UnmarshalTo(one); err != nil {
			secrets["unreadable"] = err.Error()
		} else {
			secrets[one.Name] = describe(one)
		}
	}
	tell(map[string]any{"version": answer.VersionInfo, "nonce": answer.Nonce, "secrets": secrets})
}

func describe(one *tls.Secret) map[string]any {
	if certificate := one.GetTlsCertificate(); certificate != nil {
		return describeCertificate(certificate)
	}
	context := one.GetValidationContext()
	if authorities := context.GetTrustedCa(); authorities != nil {
		return map[string]any{"trusts": fingerprints(authorities)}
	}
	config := &tls.SPIFFECertValidatorConfig{}
	custom := context.GetCustomValidatorConfig()
	if err := custom.GetTypedConfig().UnmarshalTo(config); err != nil {
		return map[string]any{"unreadable": err.Error()}
	}
	domains := map[string]any{}
	for _, domain := range config.TrustDomains {
		domains[domain.Name] = fingerprints(domain.TrustBundle)
	}
	return map[string]any{"verifier": custom.Name, "domains": domains}
}

func describeCertificate(certificate *tls.TlsCertificate) map[string]any {
	chain := certificates(certificate.CertificateChain)
	block, _ := pem.Decode(certificate.PrivateKey.GetInlineBytes())
	if len(chain) == 0 || block == nil {
		return map[string]any{"unreadable": "no certificate, or no key"}
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return map[string]any{"unreadable": err.Error()}
	}
	private, fits := key.(*ecdsa.PrivateKey)
	fits = fits && private.PublicKey.Equal(chain[0].PublicKey)
	ids := []string{}
	for _, uri := range chain[0].URIs {
		ids = append(ids, uri.String())
	}
	return map[string]any{
		"ids": ids, "key_fits": fits, "fingerprint": fingerprint(chain[0]),
		"authority": hex.EncodeToString(chain[0].AuthorityKeyId),
	}
}

func certificates(source *core.DataSource) []*x509.Certificate {
	found, rest := []*x509.Certificate{}, source.GetInlineBytes()
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			return found
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		found, rest = append(found, certificate), more
	}
}

func fingerprints(source *core.DataSource) []string {
	found := []string{}
	for _, certificate := range certificates(source) {
		found = append(found, hex.EncodeToString(certificate.SubjectKeyId))
	}
	return found
}

func fingerprint(certificate *x509.Certificate) string {
	digest := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(digest[:])
}

func tell(what map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(what); err != nil {
		os.Exit(1)
	}
}
