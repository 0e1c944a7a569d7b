// A browser, as far as signing in at oidc-provider's own pages needs one: from an authorization request to where it
// leads in the end, with the user's consent.
import assert from 'node:assert/strict'

export const signIn = async (authorization, callback, user) => {
  const jar = new Map()
  const browse = async (url, form) => {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET', redirect: 'manual', body: form && new URLSearchParams(form),
      headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') },
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [name, value] = cookie.split(';')[0].split(/=(.*)/s)
      jar.set(name, value)
    }
    return response
  }
  let next = new URL(authorization)
  for (let step = 0; !next.href.startsWith(callback); step += 1) {
    assert(step < 20, `signing in leads nowhere: ${next}`)
    let response = await browse(next)
    if (response.status === 200) {
      const prompt = /name="prompt" value="(\w+)"/.exec(await response.text())[1]
      response = await browse(next, prompt === 'login' ? { prompt, login: user, password: 'any' } : { prompt })
    }
    next = new URL(response.headers.get('location'), next)
  }
  return next
}
