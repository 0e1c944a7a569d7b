// Tools that answer only once they were told something (MCP 2026-07-28, multi round-trip requests).
import { CLIENT_CAPABILITIES_META_KEY, acceptedContent, fromJsonSchema, inputRequired } from '@modelcontextprotocol/server'
import { ask, object, text } from './words.mjs'

export const addRounds = (server, state) => {
  const nothing = fromJsonSchema(object({}))
  const says = (words) => ({ content: [{ type: 'text', text: words }] })
  // `run` gives the words of the result, or what is to be asked first and the state to come back with.
  const add = (name, description, run) => {
    const title = `test_input_required_result_${name}`
    server.registerTool(title, { description, inputSchema: nothing }, async (_, { mcpReq }) => {
      const come = await run({
        responses: mcpReq.inputResponses ?? {},
        accepted: (key) => acceptedContent(mcpReq.inputResponses, key),
        state: mcpReq.requestState(),
        can: mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {},
      })
      if (typeof come === 'string') return says(come)
      const { keep, ...inputRequests } = come
      const requestState = keep && (await state.mint({ ...keep, nonce: crypto.randomUUID() }))
      return inputRequired({ inputRequests, ...(requestState && { requestState }) })
    })
  }

  const name = () => ask('What is your name?', { name: text })
  const model = (words, maxTokens) => {
    const messages = [{ role: 'user', content: { type: 'text', text: words } }]
    return inputRequired.createMessage({ messages, maxTokens })
  }
  const confirm = () => ask('Please confirm', { ok: { type: 'boolean' } })

  add('elicitation', 'Asks for a name', ({ accepted }) => {
    const given = accepted('user_name')?.name
    return typeof given === 'string' ? `Hello, ${given}!` : { user_name: name() }
  })
  add('sampling', "Asks the client's model", ({ responses }) =>
    responses.capital_question
      ? `The model said: ${responses.capital_question.content?.text}`
      : { capital_question: model('What is the capital of France?', 100) })
  add('list_roots', 'Asks for the roots', ({ responses }) =>
    responses.client_roots?.roots
      ? `Roots: ${responses.client_roots.roots.map(({ uri }) => uri).join(', ')}`
      : { client_roots: inputRequired.listRoots() })
  add('request_state', 'Gives its state away', ({ accepted, state }) =>
    accepted('confirm') && state ? 'state-ok' : { confirm: confirm(), keep: {} })
  add('tampered_state', 'Wants its state back as it was', ({ accepted, state }) =>
    accepted('confirm') && state ? 'integrity-ok' : { confirm: confirm(), keep: {} })
  add('multiple_inputs', 'Asks for everything at once', ({ accepted, responses: { greeting, client_roots } }) =>
    accepted('user_name') && greeting && client_roots
      ? `${greeting.content?.text} ${accepted('user_name').name}`
      : { user_name: name(), greeting: model('Generate a greeting', 50), client_roots: inputRequired.listRoots(), keep: {} })
  add('multi_round', 'Asks twice', ({ accepted, state }) => {
    if (state?.round === 2 && accepted('step2')) return `${state.name} likes ${accepted('step2').color}`
    if (state?.round === 1 && accepted('step1')) {
      const step2 = ask('Step 2: What is your favorite color?', { color: text })
      return { step2, keep: { round: 2, name: accepted('step1').name } }
    }
    return { step1: ask('Step 1: What is your name?', { name: text }), keep: { round: 1 } }
  })
  add('capabilities', 'Asks only for what the client can', ({ responses, can }) => {
    const requests = {
      ...(can.elicitation && { user_name: name() }),
      ...(can.sampling && { greeting: model('Generate a greeting', 50) }),
    }
    return Object.keys(requests).length === 0 || Object.keys(responses).length > 0 ? 'nothing to ask' : requests
  })
}
