//! Header fields of a request: each that decides something stands once, or not at all.

use crate::{
    message::{Kind, Message},
    refusal::Reason,
};
use serde_json::Value;
use std::time::Duration;

/// One HTTP request as it came in.
#[derive(Clone, Copy)]
pub struct IncomingCall<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Header fields in their order: name (in any case) and value.
    pub headers: &'a [(&'a str, &'a str)],
    /// The whole body.
    pub body: &'a [u8],
    /// SHA-256 thumbprint of the verified client certificate (`x5t#S256`), where the transport has one.
    pub client_certificate: Option<&'a str>,
    /// Monotonic time since any fixed instant of this process.
    pub uptime: Duration,
    /// Now, in seconds since the epoch.
    pub now_seconds: u64,
}

impl std::fmt::Debug for IncomingCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers carry credentials, the body arguments.
        f.debug_struct("IncomingCall").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> IncomingCall<'a> {
    /// The value of a header that may stand at most once.
    pub(crate) fn single(&self, name: &'static str) -> Result<Option<&'a str>, Reason> {
        let mut values = self.headers.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| *value);
        if values.next().is_some() { Err(Reason::RepeatedHeader(name)) } else { Ok(first) }
    }

    /// Only plain JSON: what is compressed or labelled otherwise could be read differently behind us.
    pub(crate) fn check_media_type(&self) -> Result<(), Reason> {
        let encoding = self.single("content-encoding")?;
        if encoding.is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
            return Err(Reason::MediaType);
        }
        let mut parts = self.single("content-type")?.ok_or(Reason::MediaType)?.split(';').map(str::trim);
        let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
        let utf8 = parts.all(|parameter| {
            let lower = parameter.to_ascii_lowercase();
            matches!(lower.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"")
        });
        if json && utf8 { Ok(()) } else { Err(Reason::MediaType) }
    }

    /// `Mcp-Method` and `Mcp-Name`, which routers before us may have acted on, say what the body says.
    pub(crate) fn check_agrees_with(&self, message: &Message) -> Result<(), Reason> {
        if self.single("mcp-method")?.is_some_and(|method| method != message.method()) {
            return Err(Reason::HeaderMismatch("Mcp-Method"));
        }
        let name = self.single("mcp-name")?;
        let named = match message.kind() {
            Kind::Call(call) => Some(call.name.as_str()),
            Kind::Listing => None,
        };
        if name.is_some() && name != named {
            return Err(Reason::HeaderMismatch("Mcp-Name"));
        }
        Ok(())
    }

    /// `Mcp-Param-*` mirror arguments whose schema says `x-mcp-header`; one that mirrors nothing is refused.
    pub(crate) fn check_mirrored_params(
        &self,
        input_schema: Option<&Value>,
        arguments: &deputize_call::json::Object,
    ) -> Result<(), Reason> {
        const PREFIX: &str = "mcp-param-";
        let mismatch = || Reason::HeaderMismatch("Mcp-Param");
        let properties = input_schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in self.headers {
            let lower = name.to_ascii_lowercase();
            let Some(suffix) = lower.strip_prefix(PREFIX) else { continue };
            let is_mirrored = |schema: &Value| {
                let header = schema.get("x-mcp-header").and_then(Value::as_str);
                header.is_some_and(|header| header.eq_ignore_ascii_case(suffix))
            };
            let argument = properties
                .and_then(|all| all.iter().find(|(_, schema)| is_mirrored(schema)))
                .and_then(|(property, _)| arguments.get(property))
                .ok_or_else(mismatch)?;
            let expected = match argument {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => argument.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return Err(mismatch()),
            };
            if *value != expected || seen.contains(&lower) {
                return Err(mismatch());
            }
            seen.push(lower);
        }
        Ok(())
    }
}
