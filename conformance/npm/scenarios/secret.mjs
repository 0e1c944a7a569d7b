// Loaded before the conformance suite, which knows nothing of secrets: adds the one of `deputize connect` to whatever
// is sent to it. The suite's own headers stay as they are.
import { subscribe } from 'node:diagnostics_channel'
import http from 'node:http'

const { DEPUTIZE_CONNECT: place, DEPUTIZE_SECRET: secret } = process.env
const { host, origin } = new URL(place)
const authorization = `Bearer ${secret}`

// `fetch`, and undici itself.
subscribe('undici:request:create', ({ request }) => {
  if (String(request.origin) === origin) request.addHeader('authorization', authorization)
})

// node:http
const { request } = http
http.request = (options, ...rest) => {
  const there = options.hostname && `${options.hostname}:${options.port}` === host
  return request(there ? { ...options, headers: { ...options.headers, authorization } } : options, ...rest)
}
