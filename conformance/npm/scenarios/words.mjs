// What several of the server's parts say.
import { inputRequired } from '@modelcontextprotocol/server'

export const text = { type: 'string' }
export const object = (properties, required = []) => ({ type: 'object', properties, required })

// A form for the user: all its fields are needed.
export const form = (message, properties) => ({ message, requestedSchema: object(properties, Object.keys(properties)) })
export const ask = (message, properties) => inputRequired.elicit(form(message, properties))

// One red pixel.
export const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=='
