//! Resource URIs (RFC 8707): one spelling for each server, and never one that a cloud would accept.

use url::{Host, Url};

/// Whether `resource` may name a server: an absolute `https` URI (`http` on loopback alone) without user info,
/// query and fragment, in its normalized spelling, at most 512 bytes long. A bare authority may stand with or
/// without its final slash.
pub fn check_resource(resource: &str) -> Result<(), &'static str> {
    if resource.len() > MAX_RESOURCE_BYTES {
        return Err("is longer than 512 bytes");
    }
    if is_cloud_audience(resource) {
        // A token for it could be taken to that cloud, past every policy.
        return Err("is an audience that a cloud accepts");
    }
    let url = Url::parse(resource).map_err(|_| "is not an absolute URI")?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("must be https (http is for loopback alone)"),
        _ => return Err("must be an https URI"),
    }
    // RFC 8707 §2: no fragment; a query would make one server many.
    if url.fragment().is_some() || url.query().is_some() {
        return Err("must have no query and no fragment");
    }
    if !url.username().is_empty() || url.password().is_some() || resource.contains('@') {
        return Err("must have no user info");
    }
    if resource.contains(['%', '\\']) || url.host_str().is_some_and(|host| host.ends_with('.')) {
        return Err("must have no percent-encoding, no backslash and no dot at the end of its host");
    }
    if url.as_str() != resource && url.as_str().strip_suffix('/') != Some(resource) {
        return Err("is not in its normalized form");
    }
    Ok(())
}

/// Whether AWS, Google Cloud or Azure accept this as the audience of a federated token.
pub fn is_cloud_audience(audience: &str) -> bool {
    let lower = audience.to_ascii_lowercase();
    let host = match Url::parse(&lower) {
        Ok(url) if url.has_host() => url.host_str().unwrap_or_default().to_owned(),
        _ => lower.split(['/', ':']).next().unwrap_or_default().to_owned(),
    };
    let host = host.trim_end_matches('.');
    lower.starts_with("api://azureadtokenexchange")
        || CLOUD_HOSTS.contains(&host)
        || CLOUD_DOMAINS.iter().any(|domain| {
            host == *domain || host.strip_suffix(domain).is_some_and(|label| label.ends_with('.'))
        })
}

/// How two spellings of one server are found: the final slash of a bare authority does not count.
pub(super) fn comparison_key(resource: &str) -> &str {
    resource.strip_suffix('/').unwrap_or(resource)
}

/// How an audience is compared where no spelling may pass for another party: capitals, a port that goes without saying
/// and slashes at the end do not count.
pub(crate) fn audience_key(audience: &str) -> String {
    let text = Url::parse(audience).map_or_else(|_| audience.trim().to_owned(), String::from);
    text.trim_end_matches('/').to_ascii_lowercase()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

const MAX_RESOURCE_BYTES: usize = 512;
const CLOUD_HOSTS: [&str; 6] = [
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
    "login.microsoftonline.com",
    "sts.windows.net",
    "management.azure.com",
];
const CLOUD_DOMAINS: [&str; 3] = ["amazonaws.com", "amazonaws.com.cn", "aws.amazon.com"];
