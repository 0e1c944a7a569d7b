// Resources and prompts.
import { ResourceTemplate, acceptedContent, fromJsonSchema, inputRequired } from '@modelcontextprotocol/server'
import { PIXEL, ask, object, text } from './words.mjs'

export const addResources = (server) => {
  const add = (name, uri, description, mimeType, content) => {
    const read = async (at) => ({ contents: [{ uri: at.href, mimeType, ...content }] })
    server.registerResource(name, uri, { description, mimeType }, read)
  }
  add('static-text', 'test://static-text', 'Text that stays', 'text/plain', {
    text: 'This is the content of the static text resource.',
  })
  add('static-binary', 'test://static-binary', 'A picture', 'image/png', { blob: PIXEL })
  add('watched-resource', 'test://watched-resource', 'Text to subscribe to', 'text/plain', { text: 'Nothing new' })
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined })
  server.registerResource('template', template, { description: 'One of many', mimeType: 'application/json' },
    async (uri, { id }) => {
      const data = { id, templateTest: true, data: `Data for ID: ${id}` }
      return { contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify(data) }] }
    })
  for (const method of ['resources/subscribe', 'resources/unsubscribe']) {
    server.server.setRequestHandler(method, async () => ({}))
  }
}

export const addPrompts = (server) => {
  const says = (...contents) => ({ messages: contents.map((content) => ({ role: 'user', content })) })
  const arguments_ = (...names) => fromJsonSchema(object(Object.fromEntries(names.map((name) => [name, text])), names))
  const add = (name, description, more, get) => server.registerPrompt(name, { description, ...more }, get)

  add('test_simple_prompt', 'Says the same to all', {},
    async () => says({ type: 'text', text: 'This is a simple prompt for testing.' }))
  add('test_prompt_with_arguments', 'Says what it is told', { argsSchema: arguments_('arg1', 'arg2') },
    async ({ arg1, arg2 }) => says({ type: 'text', text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }))
  add('test_prompt_with_embedded_resource', 'Brings a resource', { argsSchema: arguments_('resourceUri') },
    async ({ resourceUri: uri }) => says(
      { type: 'resource', resource: { uri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' } },
      { type: 'text', text: 'Please process the embedded resource above.' },
    ))
  add('test_prompt_with_image', 'Brings a picture', {},
    async () => says(
      { type: 'image', data: PIXEL, mimeType: 'image/png' },
      { type: 'text', text: 'Please analyze the image above.' },
    ))
  add('test_input_required_result_prompt', 'Asks for its context', {}, async ({ mcpReq }) => {
    const context = acceptedContent(mcpReq.inputResponses, 'user_context')?.context
    return context === undefined
      ? inputRequired({ inputRequests: { user_context: ask('What context should the prompt use?', { context: text }) } })
      : says({ type: 'text', text: `Use the following context: ${context}` })
  })

  server.server.setRequestHandler('completion/complete', async () => ({
    completion: { values: ['testing', 'tested'], total: 2, hasMore: false },
  }))
}
