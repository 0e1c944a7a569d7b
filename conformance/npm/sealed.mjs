// Writes conformance/vectors/sealed.json: answers sealed by panva/jose, which clients have to open or to refuse.
//
//     node conformance/npm/sealed.mjs
//
// The keys are fresh in each run.
import { writeFileSync } from 'node:fs'
import { CompactEncrypt, exportJWK, exportPKCS8, generateKeyPair } from 'jose'

const CONTENT = {
  Version: 1, AccessKeyId: 'ASIAEXAMPLE', SecretAccessKey: 's/e+c', SessionToken: 't==',
  Expiration: '2026-11-22T01:02:03Z', AccountId: '111122223333', decision_id: 'dec-1',
}
const text = new TextEncoder()

const ec = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
const other = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
const p384 = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-384', extractable: true })
const rsa = await generateKeyPair('RSA-OAEP-256', { extractable: true })
const sha1 = await generateKeyPair('RSA-OAEP', { extractable: true })

async function sealed(header, key, parties) {
  const jwe = new CompactEncrypt(text.encode(JSON.stringify(CONTENT))).setProtectedHeader(header)
  if (parties) jwe.setKeyManagementParameters({ apu: text.encode('broker'), apv: text.encode('crm') })
  return jwe.encrypt(key)
}

const ES = { alg: 'ECDH-ES+A256KW', enc: 'A256GCM' }
const vectors = {
  keys: {
    ec: { ...(await exportJWK(ec.privateKey)), kid: 'ec-1', use: 'enc' },
    rsa_pkcs8: (await exportPKCS8(rsa.privateKey)).replaceAll(/-----.*-----|\n/g, ''),
    rsa_kid: 'rsa-1',
  },
  content: CONTENT,
  opened: {
    'ECDH-ES+A256KW': await sealed({ ...ES, kid: 'ec-1', cty: 'application/json' }, ec.publicKey),
    'ECDH-ES+A256KW, no kid': await sealed(ES, ec.publicKey),
    'ECDH-ES+A256KW, parties named': await sealed({ ...ES, kid: 'ec-1' }, ec.publicKey, true),
    'RSA-OAEP-256': await sealed({ alg: 'RSA-OAEP-256', enc: 'A256GCM', kid: 'rsa-1' }, rsa.publicKey),
    'RSA-OAEP-256, no kid': await sealed({ alg: 'RSA-OAEP-256', enc: 'A256GCM' }, rsa.publicKey),
  },
  refused: {
    'another key': await sealed({ ...ES, kid: 'ec-1' }, other.publicKey),
    'another kid': await sealed({ ...ES, kid: 'ec-2' }, ec.publicKey),
    'an RSA key under the kid of the EC one': await sealed(
      { alg: 'RSA-OAEP-256', enc: 'A256GCM', kid: 'ec-1' },
      rsa.publicKey,
    ),
    'another curve': await sealed({ ...ES, kid: 'ec-1' }, p384.publicKey),
    'direct agreement': await sealed({ alg: 'ECDH-ES', enc: 'A256GCM', kid: 'ec-1' }, ec.publicKey),
    'a weaker key wrap': await sealed({ alg: 'ECDH-ES+A128KW', enc: 'A256GCM', kid: 'ec-1' }, ec.publicKey),
    'a weaker cipher': await sealed({ ...ES, enc: 'A128GCM', kid: 'ec-1' }, ec.publicKey),
    'another mode': await sealed({ ...ES, enc: 'A256CBC-HS512', kid: 'ec-1' }, ec.publicKey),
    'RSA-OAEP with SHA-1': await sealed({ alg: 'RSA-OAEP', enc: 'A256GCM', kid: 'rsa-1' }, sha1.publicKey),
    'another content': await sealed({ ...ES, kid: 'ec-1', cty: 'JWT' }, ec.publicKey),
    'an unknown member': await sealed({ ...ES, kid: 'ec-1', jku: 'https://example.com/keys' }, ec.publicKey),
  },
}
const file = new URL('../vectors/sealed.json', import.meta.url)
writeFileSync(file, `${JSON.stringify(vectors, null, 2)}\n`)
