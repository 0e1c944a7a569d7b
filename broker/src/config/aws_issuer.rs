//! Which issuer AWS takes.

use url::Url;

/// Who has to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// AWS IAM.
    Aws,
    /// What stands in AWS's place, perhaps at a port.
    StandIn,
}

/// Whether this can be the URL of an OpenID Connect provider in IAM (`CreateOpenIDConnectProvider`): IAM compares it with
/// `iss` byte by byte, makes ARNs and condition keys of it, and fetches discovery and keys below it.
///
/// # Errors
/// What is wrong with it, to be read after the URL.
pub fn check_issuer(issuer: &str, taker: Taker) -> Result<(), &'static str> {
    let Some(rest) = issuer.strip_prefix("https://") else { return Err("must begin with https://") };
    if issuer.len() > MAX_CHARACTERS {
        return Err("has more than 255 characters");
    }
    if issuer.ends_with('/') {
        return Err("has a trailing slash: leave it out");
    }
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-._~/:".contains(character);
    let url = Url::parse(issuer).ok().filter(|_| rest.chars().all(is_plain));
    // What a URL's readers would write otherwise (dots, capitals in the host, `:443`) is not the same for everybody.
    let Some(url) = url.filter(|url| url.as_str().trim_end_matches('/') == issuer) else {
        return Err("is not plain: a host in small letters and a path of letters, digits and -._~ alone");
    };
    match (url.port(), taker) {
        (Some(_), Taker::Aws) => Err("has a port, which AWS takes in no issuer"),
        (Some(_), Taker::StandIn) | (None, _) => Ok(()),
    }
}

/// As IAM bounds it.
const MAX_CHARACTERS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_taken_as_iam_compares_it() {
        let longest = format!("https://a.example/{}", "b".repeat(255 - "https://a.example/".len()));
        for good in [
            "https://a.example",
            "https://broker.example.com/web-identity",
            "https://id.s3.eu-central-1.amazonaws.com/a_b~c.d/e",
            &longest,
        ] {
            assert_eq!(check_issuer(good, Taker::Aws), Ok(()), "{good}");
        }
        for (wrong, problem) in [
            ("", "https://"),
            ("http://a.example", "https://"),
            ("HTTPS://a.example", "https://"),
            ("https://", "trailing slash"),
            ("https://a.example/", "trailing slash"),
            (&format!("{longest}b"), "255"),
            ("https://a.example/b?c", "plain"),
            ("https://a.example/b#c", "plain"),
            ("https://user@a.example", "plain"),
            ("https://a.example/${b}", "plain"),
            ("https://a.example/b c", "plain"),
            ("https://a.example/%62", "plain"),
            ("https://ä.example", "plain"),
            ("https://A.example", "plain"),
            ("https://a.example/b/../c", "plain"),
            ("https://a.example:443/b", "plain"),
            ("https://user:secret/b", "plain"),
        ] {
            for taker in [Taker::Aws, Taker::StandIn] {
                let said = check_issuer(wrong, taker).unwrap_err();
                assert!(said.contains(problem), "{wrong}: {said}");
            }
        }
        let at_a_port = "https://a.example:8443/web-identity";
        assert!(check_issuer(at_a_port, Taker::Aws).unwrap_err().contains("port"));
        assert_eq!(check_issuer(at_a_port, Taker::StandIn), Ok(()));
    }
}
