//! The body of a request: how large it may be, and how long it may take.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use tokio::time::timeout;

/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Reads it, or says what is wrong with it. Who may ask is checked before: who may not, may not fill the memory either.
pub(super) async fn read(request: Request, most: usize) -> Result<Bytes, (StatusCode, String)> {
    read_within(request, most, ARRIVAL).await
}

pub(super) async fn read_within(
    request: Request,
    most: usize,
    within: Duration,
) -> Result<Bytes, (StatusCode, String)> {
    match timeout(within, to_bytes(request.into_body(), most)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => {
            let why = format!("{error}; allowed are {most} bytes\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Err(_) => {
            let why = format!("no whole body within {} ms\n", within.as_millis());
            Err((StatusCode::REQUEST_TIMEOUT, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::http::request::Builder;

    use super::read_within;

    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_body_is_read_as_far_as_it_may_be() {
        let request = |text: &'static str| Builder::new().body(Body::from(text)).unwrap();
        let read = read_within(request("seven"), 5, NEVER).await;
        assert_eq!(read.unwrap(), "seven");
        let (code, why) = read_within(request("seven!"), 5, NEVER).await.unwrap_err();
        assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(why.ends_with("allowed are 5 bytes\n"), "{why}");
    }
}
