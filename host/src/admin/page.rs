//! `GET /`: the page of an operator, one file that is part of the binary. It holds no call data, so it answers anyone; what it shows it
//! asks `/status`, `/events`, `/why` and `/dead` for, as who looks at it may.
//!
//! Its policy lets a browser run and load nothing but what it brings, so a text that got into it as more than a text would do nothing.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (script, style) = (digest("script"), digest("style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page with its policy.
pub(super) async fn page() -> Response {
    let head = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A newer host may have another one.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (head, Html(PAGE)).into_response()
}

/// How the policy names what is between these tags.
fn digest(tag: &str) -> String {
    let (_, begun) = PAGE.split_once(&format!("<{tag}>")).unwrap_or_default();
    let (text, _) = begun.split_once(&format!("</{tag}>")).unwrap_or_default();
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::{PAGE, POLICY};

    /// A page that grows beyond this is no glance any more.
    const MOST: usize = 60_000;

    #[test]
    fn it_is_one_small_file_that_loads_nothing() {
        assert!(PAGE.len() <= MOST, "{} bytes of {MOST}", PAGE.len());
        for tag in ["<script>", "<style>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for foreign in [
            " src=", "@import", "url(", "http://", "https://", "<script ",
        ] {
            // The name of a vocabulary is no address.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn nothing_is_put_in_as_markup() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "setHTML",
            " style=\"",
            " onclick=",
        ] {
            assert!(!PAGE.contains(way), "{way}");
        }
        for quoted in POLICY
            .split('\'')
            .filter(|part| part.starts_with("sha256-"))
        {
            assert_eq!(quoted.len(), "sha256-".len() + 44, "{}", *POLICY);
        }
        assert_eq!(POLICY.matches("sha256-").count(), 2);
    }
}
