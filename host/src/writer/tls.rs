//! TLS for a connection to Redis: what an operator can do about a handshake that failed.
//!
//! The settings were checked at start; what is wrong here is wrong between the two ends. Makes no connection.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// Why there is no TLS, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}{advice}", if advice.is_empty() { "" } else { "; " })]
pub(super) struct Trouble {
    error: rustls::Error,
    advice: &'static str,
}

/// What TLS has against the connection, if that is why it failed.
pub(super) fn trouble(error: &io::Error) -> Option<Trouble> {
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let (error, advice) = (error.clone(), advice(error));
    Some(Trouble { error, advice })
}

fn advice(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => "redis.ca must have the authority that issued it",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "redis.url must have a name that is in it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew it, or set the clock of this machine"
            }
            _ => "",
        },
        rustls::Error::InvalidMessage(_) => "is it the port for redis://?",
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a client certificate: redis.cert and redis.key"
        }
        rustls::Error::AlertReceived(_) => "it may not accept redis.cert",
        _ => "",
    }
}
