// The `fetch` of an MCP client that gets a token for each call by itself and proves its key, with what other people
// wrote: oauth4webapi makes the exchange, the MCP client's own DPoP session the proofs.
import { DpopSession, generateDpopKeyPair, withDpop } from '@modelcontextprotocol/client'
import * as oauth from 'oauth4webapi'

export const dpopFetch = async ({ issuer, client, user_token, resource }) => {
  const insecure = { [oauth.allowInsecureRequests]: issuer.startsWith('http://') }
  const discovery = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...insecure })
  const server = await oauth.processDiscoveryResponse(new URL(issuer), discovery)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  const key = await crypto.subtle.importKey('jwk', client.private_jwk, algorithm, false, ['sign'])
  const authentication = oauth.PrivateKeyJwt({ key, kid: client.private_jwk.kid })

  // One key for both: the token is bound to it at the broker, and the proofs for the server are made with it.
  const keyPair = await generateDpopKeyPair()
  const DPoP = oauth.DPoP(client, keyPair)
  const session = await DpopSession.create({ keyPair })

  const exchange = async (details) => {
    const parameters = {
      subject_token: user_token, subject_token_type: 'urn:ietf:params:oauth:token-type:jwt', resource,
      ...(details && { authorization_details: JSON.stringify([details]) }),
    }
    const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
    const options = { DPoP, ...insecure }
    const response = await oauth.genericTokenEndpointRequest(server, client, authentication, grant, parameters, options)
    return oauth.processGenericTokenEndpointResponse(server, client, response)
  }
  const token = async (details) => {
    const challenged = (error) => {
      if (!oauth.isDPoPNonceError(error)) throw error
      return exchange(details)
    }
    return (await exchange(details).catch(challenged)).access_token
  }

  return async (url, init = {}) => {
    const { method, params } = init.body ? JSON.parse(init.body) : {}
    const details = method === 'tools/call'
      ? { type: 'mcp_tool_call', locations: [resource], actions: [method], identifier: params.name, arguments: params.arguments ?? {} }
      : undefined
    const own = await token(details)
    return withDpop(session, () => own)(fetch)(url, init)
  }
}
