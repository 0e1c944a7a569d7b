//! Keys of nobody, one for each algorithm and length. Whoever is unknown, or names a key that is, costs a verification
//! under one of these, so that neither time nor answer tells which clients there are. That they verify nothing depends
//! on nobody's secret: what a decoy says is not listened to.
//!
//! RSA takes the longer the longer its key, and a signature is as long as its key (RFC 8017 §8.2.2): so the signature
//! says which decoy costs as much. There is one for 2,048, 3,072 and 4,096 bits; clients with RSA keys of other lengths
//! can be told apart by those who know their `kid`.

use deputize_call::{
    jws::UnverifiedJws,
    keys::{KeySet, PublicKey},
};
use std::sync::LazyLock;

/// The decoy for the algorithm that this token names and the length of its signature; for a length that no key of this
/// algorithm has, one that refuses it as quickly as any key would.
pub(super) fn for_signature(jws: &UnverifiedJws<'_>) -> Option<&'static PublicKey> {
    let fitting = || DECOYS.iter().filter(|key| key.fits(jws.header.alg));
    fitting().find(|key| key.signature_bytes() == jws.signature.len()).or_else(|| fitting().next())
}

static DECOYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_jwks(JWKS.as_bytes()).unwrap_or_default());

/// Their private parts were thrown away.
const JWKS: &str = r#"{"keys":[
{"kty":"EC","crv":"P-256","x":"eZNK12EOd-5L7B7jjDSSCSxGjk2f9WzGxeLVRV5Oy6U","y":"apsZdvCDYFUa8rNYLR2jG1ClIy__KiPeP0eTSj-zxiM"},
{"kty":"EC","crv":"P-384","x":"9-BTmhmCBNCPxhyh7sBaXb-Fu2S3eH-OClqyDgBYNxPcbEe23OJb-xVt7j78dFwO","y":"-a0RHx6XNXERcR42LxrQGky3MyR0WR8j-j0LM2kIVfrfzWGZXAucUqpp_PCjqvSF"},
{"kty":"OKP","crv":"Ed25519","x":"gCMFKVcXD4zoIiKnLRe7jJ6wvqTwVqC2HTEDvKlaQMU"},
{"kty":"RSA","e":"AQAB","n":"n4MHhfBxMeELKWB7kjsmVAH3Ruup9MLrWMNfNmoKa5bwUo70wRNQXVs07uMfIYEzwVs6XCQF4oTEgBPXiEcT7xO7xTrbKnrbI6Gopz2W4w5lnNsL4FDRTPvewqC_XXbRjw6H-b1vY5OtbosMUZSoUuYjG-GThMUcu_makrFihcDFYfDMRXAOXIUrcJkSiWDJHGTyhk6I7NoLYh5_X5NB0IuK94LYD5MOrgBmLHADVw9rThTd9lFT1t9DgDajoA91Vt3Zn5QqMf9gFWeX5tHf1A0kydet_J42VHQmtttoACyyoktufZ2xsOTXzbwI3sWa0lc72zIrJaUuo9HSlnB41w"},
{"kty":"RSA","e":"AQAB","n":"rAcx1vET59RHKDJoL-PCrCYS-LYs_XW8ozuPkDgVhtHtFH8hwAyjsRjSiGmchyWx6b1N5aIfN5jfIFSQxJSCvs_6jSTwX65l0dCAVKm5LTsm7iSFti2HKW69cPmqEQ7SPa4eyKJeo493ZEK1U0Z0dAx9mAF3qM4-6BXt6HueEGw7Na_N0e1PAIcVq9HvUwBQtOzn7BkFwtdUTqKFUmVbhRDnlrCN0C21_OH8PGTMT9NHG4E82cCYVYeClBF1LTAtd7EqXS2yaQ6qbWwaK-U5nQsiRxzXTrcpkH-ori0wmzeom7XdelD_0WE9o5OYHXM27XCSIayvEjDnMQ6_s4zfcp4PsRi68jQn6mbpzViABb139itIz69MGhbTAbTTLMFbI2hGsilAuHDCo7jA7BXz5KHV2Y2ZsHU7O9p39BiYXqJub-0g-sI8pLRbrzZFCzYHEN9lGqhfe-btuQg7ESuHJzLtloIvpx_iY6iU9N8foZu7GCgX-vX0F8CFEIPPoRFn"},
{"kty":"RSA","e":"AQAB","n":"zxr9iG1fc52ho9CdYzSVm-Hv1foFypqlEiIdqSqvLJy09EVRJQCtvKJnU6OWDP6tgDJy4NGJ71hnSiJbR3BSi-HR-nQg6el7RpirfUS8k-oYEPlTWyE1Xr4vD8alZ6iVy2VFAsSFBtSgWgESJnUrNalbHqBi5A3t9RxYjgKrXzaVtuJUpdRX_--98F-XaKjqzb1xiwBaLuQhuz4azrdNz6GVui7n6A0z0FFZ_f4AyB39gqCxWa0icfMSp5Shqezdc_zT5TsMEHdiUJ2JtnqO_CIpjn1NxS-tIKDojeKi5LJV70I-EKb7brtm_BLv_k6FqI2BhUDOO1okFndaHcrw-2Kas2B-7Aq9noqYvyGC2kmTktC3SepPzvxaOATQ5r3xHF916xT3MCUaU2qe-gJ3EFTsal8tjO8n2FaCDFd6W2hVjccOwLEw3pK2tL6BsTI5MmkzpPsgBEPBN_uEDo8GR7O47zf8OU7vjZNBBjTYZuL7TGWkepp1njmFStmtvC7msuW1qt28AcOw8M0Js4aAC-K7KdJ_118TsI9EgNCiXMYdKVrxX6kGOL_SrBWl8NkqyzXbEy8vGGg5BlomFECCVVYqKgsvCmYk4dtfJAINPW2qQhAhuNoOBRMQPIcOboFWsCqtJvAu0-5Em4dlybBs2Z6gwuOb4ekSoGXWfSfw-i8"}
]}"#;
