//! Who may ask: loopback peers or the token to look, the token alone to change something.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};

use crate::config::Secret;

/// What a proxy adds: then the peer is the proxy, and who asks may be anywhere.
const FORWARDED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Loopback peers, or the token.
fn admits(token: &Secret, peer: SocketAddr, headers: &HeaderMap) -> bool {
    let is_here = peer.ip().to_canonical().is_loopback();
    has_token(token, headers) || (is_here && is_direct(headers))
}

/// Whether a loopback peer asks on its own behalf: neither as a proxy, nor as a browser whose page made a name of its own lead
/// to this machine. A page cannot do that with an address.
fn is_direct(headers: &HeaderMap) -> bool {
    let is_ours = |host: &str| {
        let address = host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok();
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        address
            || bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
            || name.eq_ignore_ascii_case("localhost")
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts.all(|host| host.to_str().is_ok_and(is_ours))
        && FORWARDED.iter().all(|name| !headers.contains_key(*name))
}

/// Who may look at call data, or what to say to who may not.
pub(super) fn admit(
    token: &Secret,
    what: &str,
    peer: SocketAddr,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    match admits(token, peer, headers) {
        true => Ok(()),
        false => Err((
            StatusCode::FORBIDDEN,
            format!(
                "{what} is for loopback peers, or for the token of http.token (Authorization: Bearer …)\n"
            ),
        )),
    }
}

/// The token, which must be configured.
fn has_token(token: &Secret, headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|given| given.strip_prefix("Bearer "));
    given.is_some_and(|given| !token.is_empty() && same(given, token.expose()))
}

/// What needs the token, or what to say to who does not have it.
pub(super) fn allow(
    token: &Secret,
    what: &str,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    if has_token(token, headers) {
        return Ok(());
    }
    let why = match token.is_empty() {
        true => "a token: set http.token",
        false => "the token of http.token (Authorization: Bearer …)",
    };
    Err((StatusCode::FORBIDDEN, format!("{what} needs {why}\n")))
}

/// Compares all bytes whatever they are, so that the time taken tells nothing.
fn same(given: &str, right: &str) -> bool {
    let differ = given
        .bytes()
        .zip(right.bytes())
        .fold(0, |differ, (one, other)| differ | (one ^ other));
    given.len() == right.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, header};

    use super::admits;
    use crate::config::Secret;

    fn check(token: &str, peer: &str, given: Option<&str>) -> bool {
        let given = given.map(|given| (header::AUTHORIZATION, given.parse().unwrap()));
        let headers: HeaderMap = given.into_iter().collect();
        admits(&Secret::new(token), peer.parse().unwrap(), &headers)
    }

    #[test]
    fn loopback_needs_no_token() {
        for peer in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(check("secret", peer, None), "{peer}");
        }
    }

    #[test]
    fn loopback_needs_the_token_for_a_name_of_somebody_elses_or_behind_a_proxy() {
        let with = |name: &'static str, value: &str, token: Option<&str>| {
            let authorization = token.map(|token| (header::AUTHORIZATION, token.parse().unwrap()));
            let given = [(HeaderName::from_static(name), value.parse().unwrap())];
            let headers: HeaderMap = given.into_iter().chain(authorization).collect();
            admits(
                &Secret::new("secret"),
                "127.0.0.1:1".parse().unwrap(),
                &headers,
            )
        };
        for host in [
            "127.0.0.1:9876",
            "127.0.0.1",
            "192.0.2.7:9876",
            "[::1]:9876",
            "[::1]",
            "localhost:9876",
            "LocalHost",
        ] {
            assert!(with("host", host, None), "{host}");
        }
        for host in [
            "evil.example:9876",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example@127.0.0.1",
            "[::1].evil.example",
            "",
        ] {
            assert!(!with("host", host, None), "{host}");
            assert!(with("host", host, Some("Bearer secret")), "{host}");
        }
        for proxy in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
            assert!(!with(proxy, "127.0.0.1", None), "{proxy}");
            assert!(with(proxy, "127.0.0.1", Some("Bearer secret")), "{proxy}");
        }
    }

    #[test]
    fn any_other_peer_needs_the_very_token() {
        for peer in [
            "192.0.2.7:1",
            "[2001:db8::7]:1",
            "[::ffff:192.0.2.7]:1",
            "0.0.0.0:1",
        ] {
            assert!(check("secret", peer, Some("Bearer secret")), "{peer}");
            for given in [
                None,
                Some("Bearer secreT"),
                Some("Bearer secret2"),
                Some("Bearer "),
                Some("secret"),
            ] {
                assert!(!check("secret", peer, given), "{peer} with {given:?}");
            }
            assert!(
                !check("", peer, Some("Bearer ")),
                "no token is configured, so none is right"
            );
        }
    }
}
