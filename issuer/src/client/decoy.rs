//! Keys of nobody, one for each algorithm. Whoever is unknown, or names a key that is, costs a verification under one
//! of these, so that neither time nor answer tells which clients there are. That they verify nothing depends on
//! nobody's secret: what a decoy says is not listened to.

use deputize_call::{
    jws::UnverifiedJws,
    keys::{KeySet, PublicKey},
};
use std::sync::LazyLock;

/// The decoy for the algorithm that this token names. RSA keys of clients may be longer than its 2,048 bits; clients
/// with such keys can be told apart by those who know their `kid`.
pub(super) fn for_algorithm(jws: &UnverifiedJws<'_>) -> Option<&'static PublicKey> {
    DECOYS.iter().find(|key| key.fits(jws.header.alg))
}

static DECOYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_jwks(JWKS.as_bytes()).unwrap_or_default());

/// Their private parts were thrown away.
const JWKS: &str = r#"{"keys":[
{"kty":"EC","crv":"P-256","x":"eZNK12EOd-5L7B7jjDSSCSxGjk2f9WzGxeLVRV5Oy6U","y":"apsZdvCDYFUa8rNYLR2jG1ClIy__KiPeP0eTSj-zxiM"},
{"kty":"EC","crv":"P-384","x":"9-BTmhmCBNCPxhyh7sBaXb-Fu2S3eH-OClqyDgBYNxPcbEe23OJb-xVt7j78dFwO","y":"-a0RHx6XNXERcR42LxrQGky3MyR0WR8j-j0LM2kIVfrfzWGZXAucUqpp_PCjqvSF"},
{"kty":"OKP","crv":"Ed25519","x":"gCMFKVcXD4zoIiKnLRe7jJ6wvqTwVqC2HTEDvKlaQMU"},
{"kty":"RSA","e":"AQAB","n":"n4MHhfBxMeELKWB7kjsmVAH3Ruup9MLrWMNfNmoKa5bwUo70wRNQXVs07uMfIYEzwVs6XCQF4oTEgBPXiEcT7xO7xTrbKnrbI6Gopz2W4w5lnNsL4FDRTPvewqC_XXbRjw6H-b1vY5OtbosMUZSoUuYjG-GThMUcu_makrFihcDFYfDMRXAOXIUrcJkSiWDJHGTyhk6I7NoLYh5_X5NB0IuK94LYD5MOrgBmLHADVw9rThTd9lFT1t9DgDajoA91Vt3Zn5QqMf9gFWeX5tHf1A0kydet_J42VHQmtttoACyyoktufZ2xsOTXzbwI3sWa0lc72zIrJaUuo9HSlnB41w"}
]}"#;
