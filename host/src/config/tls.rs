//! TLS to Redis: whom to trust, and who we are. The PEM files are read and checked at start, by what will use them.
//!
//! A value is the path of a file, or what would be in it: so `JACKFIELD_REDIS_CA` may name the file, and
//! `JACKFIELD_REDIS_CA_FILE` may as well. Connects to nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, crypto};

use super::reader::{Given, Reader};
use super::types::{Identity, Secret, Tls};
use super::values::{self, Syntax};

/// The largest file that is read: every authority of a system has room in it.
const MAX_FILE: u64 = 4 << 20;
/// What every PEM text has, and no path.
pub(super) const BEGIN: &str = "-----BEGIN ";

const CERTIFICATES: &str = "a PEM file with certificates";
const KEY: &str = "a PEM file with the private key of redis.cert, not encrypted";

/// The settings of TLS, which only a `rediss://` address uses.
pub(super) fn tls(reader: &mut Reader, is_wanted: bool) -> Option<Tls> {
    let ca = pem(reader, "redis.ca", &values::PEM, CERTIFICATES);
    let cert = pem(reader, "redis.cert", &values::PEM, CERTIFICATES);
    let key = pem(reader, "redis.key", &values::PEM_KEY, KEY);
    if !is_wanted {
        for given in [&ca, &cert, &key].into_iter().flatten() {
            reader.refuse(
                given,
                "a setting for TLS: redis.url must begin with rediss://",
            );
        }
        return None;
    }
    let ca = ca.filter(|ca| accept(reader, ca, CERTIFICATES, authorities(&ca.value).map(|_| ())));
    let identity = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => identity(reader, &cert, &key),
        (Some(alone), None) => {
            reader.refuse(&alone, "a certificate whose private key is in redis.key");
            None
        }
        (None, Some(alone)) => {
            reader.refuse(&alone, "a private key whose certificate is in redis.cert");
            None
        }
    };
    Some(Tls {
        ca: ca.map(|given| given.value),
        identity,
    })
}

/// The text of a PEM file.
fn pem(
    reader: &mut Reader,
    key: &str,
    syntax: &Syntax<String>,
    allowed: &str,
) -> Option<Given<String>> {
    let given = reader.given(key, syntax)?;
    if given.value.is_empty() || given.value.contains(BEGIN) {
        return Some(given).filter(|given| !given.value.is_empty());
    }
    match read(Path::new(&given.value)) {
        Ok(text) => Some(given.with(text)),
        Err(error) => {
            reader.refuse(&given, format!("{allowed}; it cannot be read: {error}"));
            None
        }
    }
}

/// Looks before it opens: a pipe would wait for a writer.
fn read(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    let size = File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    match u64::try_from(size) {
        Ok(size) if size <= MAX_FILE => Ok(text),
        _ => Err(io::Error::other("over 4 MiB")),
    }
}

/// Notes why a file cannot be used.
fn accept<T>(
    reader: &mut Reader,
    given: &Given<T>,
    allowed: &str,
    why: Result<(), String>,
) -> bool {
    if let Err(why) = &why {
        reader.refuse(given, format!("{allowed}; {why}"));
    }
    why.is_ok()
}

fn identity(reader: &mut Reader, cert: &Given<String>, key: &Given<String>) -> Option<Identity> {
    let chain = certificates(&cert.value);
    let private = PrivateKeyDer::from_pem_slice(key.value.as_bytes());
    let found = chain.as_ref().map(|_| ()).map_err(Clone::clone);
    let is_cert = accept(reader, cert, CERTIFICATES, found);
    // The error's own words could quote the file.
    let found = private
        .as_ref()
        .map(|_| ())
        .map_err(|_| "it has none".to_owned());
    let is_key = accept(reader, key, KEY, found);
    let (Ok(chain), Ok(private), true, true) = (chain, private, is_cert, is_key) else {
        return None;
    };
    let fits = builder(RootCertStore::empty())
        .and_then(|builder| builder.with_client_auth_cert(chain, private))
        .map(|_| ())
        .map_err(|error| error.to_string());
    accept(reader, key, KEY, fits).then(|| Identity {
        cert: cert.value.clone(),
        key: Secret::new(&key.value),
    })
}

fn builder(
    roots: RootCertStore,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

/// The authorities that are trusted; each certificate must be able to be one.
fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Our end of a TLS connection. Without authorities of its own it trusts those of this machine.
///
/// # Errors
/// What was fine at the start is not any more: these settings were checked when they were read.
pub fn tls_client(tls: &Tls) -> io::Result<ClientConfig> {
    let roots = match &tls.ca {
        Some(pem) => authorities(pem).map_err(io::Error::other)?,
        None => {
            let mut found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() && !found.errors.is_empty() {
                return Err(io::Error::other(found.errors.swap_remove(0)));
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            roots
        }
    };
    let builder = builder(roots).map_err(io::Error::other)?;
    let Some(identity) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&identity.cert).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes());
    // The error's own words could quote it.
    let key = key.map_err(|_| io::Error::other("redis.key has no private key"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(io::Error::other)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it has none".to_owned()),
        Ok(found) => Ok(found),
        Err(_) => Err("it is damaged".to_owned()),
    }
}
