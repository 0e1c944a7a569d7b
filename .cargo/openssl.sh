#!/bin/sh
# Stands in for perl where the crate openssl-src configures OpenSSL, which has one task here: JWE, through josekit.
# It is built without TLS and without what JWE has no use for: half the work, and no second TLS stack in the program.
set -eu
[ "${1-}" = ./Configure ] || exec perl "$@"
set -- "$@" no-apps no-docs no-makedepend no-http no-ui-console no-async no-sock no-dgram \
    no-tls no-dtls no-quic no-srtp no-psk no-srp no-nextprotoneg no-multiblock no-ssl-trace no-ct no-ocsp \
    no-cms no-cmp no-ts no-rfc3779 \
    no-engine no-afalgeng no-legacy \
    no-dsa no-dh no-des no-chacha no-poly1305 no-cmac \
    no-argon2 no-scrypt no-aria no-bf no-cast no-rc2 no-rc4 no-sm2 no-sm3 no-sm4 no-gost no-ec2m no-ocb no-siv \
    no-siphash no-blake2 no-md4 no-mdc2 no-rmd160 no-whirlpool no-lms no-ml-dsa no-ml-kem no-slh-dsa
[ "${PROFILE-}" = debug ] || exec perl "$@"

# The rest is for debug builds, which are to be quick to make: a token to unwrap costs them some milliseconds more.
perl "$@" no-asm -O0

# Each of the hundred generators of the build loads what Configure learnt. The 20,000 lines on which file is made of
# which are in the Makefile by now; without them a generator starts in a third of the time.
perl -i -0pe 's/^our %unified_info = \(\n.*?^\);\n/our %unified_info = ();\n/ms' configdata.pm
touch -r Makefile configdata.pm

# Half of each small file's time goes into the same headers, so gcc reads them once. Left out are the folders where a
# file defines something that a header asks about.
case "$("${CC:-cc}" --version)" in *clang*) exit ;; esac
cat > deputize.h <<'HEADERS'
#include "internal/deprecated.h"
#include "internal/e_os.h"
#include "internal/cryptlib.h"
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/x509.h>
#include "crypto/evp.h"
HEADERS
folders='crypto/(asn1|bn|conf|ec|encode_decode|evp|ffc|hmac|modes|objects|pem|pkcs12|pkcs7|property|rsa|sha|store|x509)
providers(/common(/der)?)?
providers/implementations/[a-z_]+
ssl(/[a-z_]+)*'
for folder in $folders; do
    sed -E -i "s#-c -o (\\\$@ $folder/[^/ ]*\\.c)\$#-include deputize.h -c -o \\1#" Makefile
done
make --silent build_generated
compile=$(make --dry-run crypto/evp/libcrypto-lib-evp_lib.o | grep -e ' -include deputize\.h ')
eval "${compile%% -include *} -x c-header -o deputize.h.gch deputize.h"
