//! Keys sign for the mint alone: whoever has the desk reads what is published, and no more.
use deputize_issuer::desk::Desk;
use serde_json::json;

fn tool_call_token(desk: &Desk) {
    let _ = desk.keys.ring().current.sign("at+jwt", &json!({ "sub": "anybody" }));
}

fn jwt_svid(desk: &Desk) {
    let Some(door) = &desk.spiffe else { return };
    let _ = door.authorities.ring().jwt.key.sign("JWT", &json!({ "sub": "anybody" }));
}

fn main() {}
