//! Which addresses may be asked, and a resolver that answers with no others.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

/// Looks up the addresses of a name.
pub(in crate::backends) type Lookup = Arc<dyn Fn(String) -> LookupFuture + Send + Sync>;
type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver.
pub(in crate::backends) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }) as LookupFuture
    })
}

/// Resolves and checks in one step: the addresses that it answers are those that are connected to, so a name
/// cannot be pointed elsewhere between check and use.
pub(super) struct CheckedResolver {
    allow_private: bool,
    lookup: Lookup,
}

/// A name leads, with any of its addresses, to where nothing may be fetched from.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("address not allowed")]
pub(super) struct NotAllowed;

impl CheckedResolver {
    pub(super) fn new(allow_private: bool, lookup: Lookup) -> Self {
        Self { allow_private, lookup }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, allow_private) = (name.as_str().to_owned(), self.allow_private);
        let must_be_loopback = name == "localhost";
        let addresses = (self.lookup)(name);
        Box::pin(async move {
            let addresses = addresses.await?;
            let fits = |address: &SocketAddr| {
                allowed(address.ip(), allow_private) && (!must_be_loopback || address.ip().is_loopback())
            };
            // One bad address spoils the name: whoever controls it may answer with the bad one alone next time.
            if addresses.is_empty() || !addresses.iter().all(fits) {
                return Err(Box::new(NotAllowed) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address may be asked.
pub(super) fn allowed(address: IpAddr, allow_private: bool) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address) || (allow_private && is_private_v4(address)),
        IpAddr::V6(address) => {
            is_public_v6(address) || (allow_private && (address.is_loopback() || address.is_unique_local()))
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // RFC 1918, loopback, and shared address space (RFC 6598).
    address.is_private() || address.is_loopback() || (a == 100 && (64..128).contains(&b))
}

/// The IANA registry of special-purpose IPv4 addresses (RFC 6890), all of it refused.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = is_private_v4(address)
        || a == 0
        || address.is_link_local()
        || address.is_documentation()
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (b == 18 || b == 19))
        // Multicast, reserved, broadcast.
        || a >= 224;
    !special
}

/// Global unicast (RFC 4291 §2.4) without what carries or stands for other addresses. IPv4-mapped and translated
/// addresses are outside of it, and so refused.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let special = match first {
        0x2001 => second < 0x0200 || second == 0x0db8, // IETF protocol assignments with Teredo, documentation
        0x2002 => true,                                // 6to4
        0x3fff => second < 0x1000,                     // documentation (RFC 9637)
        _ => false,
    };
    (first & 0xe000) == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn public_addresses_are_allowed() {
        for public in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(allowed(ip(public), false), "{public}");
        }
    }

    #[test]
    fn private_addresses_are_allowed_only_where_configured() {
        for private in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"]
        {
            assert!(!allowed(ip(private), false), "{private}");
            assert!(allowed(ip(private), true), "{private}");
        }
    }

    #[test]
    fn special_addresses_are_never_allowed() {
        for special in [
            "0.0.0.0",
            "169.254.169.254",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
            "3fff::1",
        ] {
            assert!(!allowed(ip(special), false), "{special}");
            assert!(!allowed(ip(special), true), "{special}");
        }
    }
}
