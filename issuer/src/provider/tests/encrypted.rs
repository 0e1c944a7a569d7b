//! Encrypted tokens: opened, and then verified as any other.

use super::*;
use SubjectTokenType::AccessToken;

/// "Decrypts" by looking up.
struct FakeDecrypter(HashMap<String, String>);

impl TokenDecrypter for FakeDecrypter {
    fn decrypt(&self, jwe: &str) -> Result<Zeroizing<String>, UserTokenError> {
        let inside = self.0.get(jwe).cloned().ok_or(UserTokenError::Encrypted("does not decrypt"))?;
        Ok(Zeroizing::new(inside))
    }
}

#[test]
fn what_is_inside_is_verified_as_any_other() {
    let good = at_jwt(&plain_claims());
    let stranger = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let forged = sign(&stranger, json!({ "typ": "at+jwt", "kid": ES256.kid() }), &plain_claims());
    let unsigned = sign(&ES256, json!({ "alg": "none" }), &plain_claims());
    let inside = [
        ("good.a.b.c.d", good.as_str()),
        ("forged.a.b.c.d", forged.as_str()),
        ("unsigned.a.b.c.d", unsigned.as_str()),
        ("bare.a.b.c.d", "{\"sub\":\"alice\"}"),
        ("nested.a.b.c.d", "good.a.b.c.d"),
    ];
    let inside = inside.map(|(jwe, inside)| (jwe.to_owned(), inside.to_owned())).into();
    let provider = Preset::Generic.provider("https://id.example.com", TENANT);
    let allowed = ["https://platform.example.com", "platform"];
    let scene = Scene::with_decrypter(provider.clone(), &allowed, Some(Arc::new(FakeDecrypter(inside))));

    let verified = scene.verify("good.a.b.c.d", AccessToken).unwrap();
    assert_eq!(verified.token_hash, scene.verify(&good, AccessToken).unwrap().token_hash, "the same token");
    assert_eq!(scene.verify_at("good.a.b.c.d", AccessToken, NOW + 400).unwrap_err().reason(), "expired");
    assert_eq!(scene.reason("forged.a.b.c.d", AccessToken), "signature");
    assert_eq!(scene.reason("unsigned.a.b.c.d", AccessToken), "algorithm");
    assert_eq!(scene.reason("bare.a.b.c.d", AccessToken), "malformed");
    assert_eq!(scene.reason("nested.a.b.c.d", AccessToken), "encrypted");
    assert_eq!(scene.reason("unknown.a.b.c.d", AccessToken), "encrypted");

    let without = Scene::new(provider, &allowed);
    assert_eq!(without.reason("good.a.b.c.d", AccessToken), "encrypted");
}
