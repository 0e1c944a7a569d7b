//! Header fields of a request: each that decides something stands once, or not at all.

use crate::{
    caller::Caller,
    message::{Kind, Message},
    mirrored,
    refusal::Reason,
};
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
    /// The workload that this certificate is of, where the transport has looked.
    pub caller: Caller<'a>,
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
        let Some(name) = self.single("mcp-name")? else { return Ok(()) };
        let named = match message.kind() {
            Kind::Call(call) => Some(call.name.as_str()),
            Kind::Listing | Kind::Response(_) => None,
        };
        // An encoded name is decoded before it is compared (MCP 2026-07-28, value encoding).
        if mirrored::decode(name).as_deref() != named {
            return Err(Reason::HeaderMismatch("Mcp-Name"));
        }
        Ok(())
    }
}
