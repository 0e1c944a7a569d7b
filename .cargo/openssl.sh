#!/bin/sh
# Stands in for perl where the crate openssl-src configures OpenSSL, which has one task here: JWE, through josekit.
# It is built without TLS and without what JWE has no use for: half the work, and no second TLS stack in the program.
set -eu
if [ "${1-}" = ./Configure ]; then
    set -- "$@" no-apps no-docs no-makedepend no-http no-ui-console \
        no-tls no-dtls no-quic no-srtp no-psk no-srp no-nextprotoneg no-multiblock no-ssl-trace no-ct no-ocsp \
        no-cms no-cmp no-ts no-rfc3779 \
        no-engine no-afalgeng no-legacy \
        no-argon2 no-scrypt no-aria no-bf no-cast no-rc2 no-rc4 no-sm2 no-sm3 no-sm4 no-gost no-ec2m no-ocb no-siv \
        no-siphash no-blake2 no-md4 no-mdc2 no-rmd160 no-whirlpool no-lms no-ml-dsa no-ml-kem no-slh-dsa
    # A debug build is to be quick to make; the inner loops are assembly either way.
    [ "${PROFILE-}" != debug ] || set -- "$@" -O0
fi
exec perl "$@"
