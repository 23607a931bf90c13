//! TLS on ports of clients: certificates and keys from PEM files, and whom a client has shown to be.

mod name;

use crate::flags::value::{FlagValue, Kind};
use anyhow::{Context, ensure};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// How long a client has for its side of the handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a port is served with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, and those between it and its authority.
    pub cert: String,
    /// Its key; empty where both lie in one file.
    pub key: String,
    /// The authorities that clients' certificates may come from.
    pub trusted_ca: String,
    /// Whether clients are asked for one.
    pub client_auth: ClientAuth,
}

/// Whether clients are asked for certificates, in ZooKeeper's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They must have one.
    #[default]
    Need,
    /// They may have one.
    Want,
    /// They are not asked.
    None,
}

impl FlagValue for ClientAuth {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "need" => Ok(ClientAuth::Need),
            "want" => Ok(ClientAuth::Want),
            "none" => Ok(ClientAuth::None),
            _ => Err(format!(
                "unknown client authentication {text:?}, want need, want or none"
            )),
        }
    }
}

/// Speaks TLS on accepted connections; cheap to clone.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads the files.
    pub fn load(files: &Files) -> anyhow::Result<Tls> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let verifier = match files.client_auth {
            ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
            ClientAuth::Want => {
                let roots = authorities(&files.trusted_ca)?;
                WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()?
            }
            ClientAuth::Need => {
                let roots = authorities(&files.trusted_ca)?;
                WebPkiClientVerifier::builder_with_provider(roots, provider).build()?
            }
        };
        let chain = certificates(&files.cert)?;
        let path = if files.key.is_empty() {
            &files.cert
        } else {
            &files.key
        };
        let key = PrivateKeyDer::from_pem_file(path)
            .with_context(|| format!("read an unencrypted key from {path}"))?;
        let config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| format!("serve with {} and the key of {path}", files.cert))?;
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands; none where the client does not speak TLS, or not as it has to.
    pub async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        match tokio::time::timeout(PATIENCE, self.0.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// The name in the certificate that a client has shown, as Java spells it; none if it has shown none.
pub fn subject(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates()?.first()?;
    name::subject(certificate)
}

fn authorities(path: &str) -> anyhow::Result<Arc<RootCertStore>> {
    ensure!(
        !path.is_empty(),
        "to ask clients for certificates takes --zookeeper-trusted-ca-file; \
         --zookeeper-client-auth=none does not ask"
    );
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("trust a certificate of {path}"))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("read certificates from {path}"))?;
    ensure!(
        !certificates.is_empty(),
        "{path} holds no certificate in PEM"
    );
    Ok(certificates)
}
