use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, by which the API is served over TLS. Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{} is not PEM with {wanted}: {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
        /// What is wrong. Nothing of the file is in it.
        problem: String,
    },
    /// The two do not go together, or the key is of a kind that is not known.
    #[error("the certificate in {} cannot be used with the key in {}: {source}", certificate.display(), key.display())]
    Misfit {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads a certificate, followed by those between it and its authority, and its key, from files of PEM.
    ///
    /// # Errors
    /// Which file is not as it should be, and how.
    pub fn load(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let files = Arc::new(Files { certificate: certificate.into(), key: key.into() });
        let current = Arc::new(Current(RwLock::new(files.read()?)));
        let misfit = |source| files.misfit(source);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(misfit)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config) })
    }

    /// Reads the files again, for connections from now on. With files that are not as they should be, all stays as it was.
    ///
    /// # Errors
    /// Which file is not as it should be, and how.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = self.files.read()?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.clone().into()
    }
}

impl Files {
    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let pem = |path: &Path, wanted, problem: pem::Error| TlsError::Pem {
            path: path.to_owned(),
            wanted,
            problem: match problem {
                pem::Error::NoItemsFound => "there is none".to_owned(),
                // Others may quote a line, which may be the key's.
                _ => "it is damaged".to_owned(),
            },
        };
        let wanted = "a certificate";
        let text = read(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(|problem| pem(&self.certificate, wanted, problem))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|problem| pem(&self.key, "a private key", problem))?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|source| self.misfit(source))?;
        Ok(Arc::new(key))
    }

    fn misfit(&self, source: rustls::Error) -> TlsError {
        TlsError::Misfit { certificate: self.certificate.clone(), key: self.key.clone(), source }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// What is shown to those who connect.
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

/// Where the key is, but nothing of it.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}
