//! TLS to a server, by the rules of libpq: who asks for no certificate to be checked gets encryption
//! alone (<https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>).

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sqlx::postgres::PgSslMode;

/// Why the certificates cannot be used.
type Unusable = Box<dyn std::error::Error + Send + Sync>;

/// How a client speaks TLS in this mode, with the certificates of this file as authorities where some
/// are asked for; the well-known ones if there is no file.
pub(super) fn client(
    mode: PgSslMode,
    authorities: Option<&Path>,
) -> Result<ClientConfig, Unusable> {
    let provider = Arc::new(ring::default_provider());
    let chain = match mode {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            let roots = Arc::new(roots(authorities)?);
            let provider = Arc::clone(&provider);
            Some(WebPkiServerVerifier::builder_with_provider(roots, provider).build()?)
        }
        _ => None,
    };
    let any_name = !matches!(mode, PgSslMode::VerifyFull);
    let verifier = Verifier { chain, any_name, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Unusable> {
    let Some(file) = file else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// Checks of a server's certificate what the mode asks for. That the server has its key is always
/// checked.
#[derive(Debug)]
struct Verifier {
    /// Checks who signed it, if that is asked for.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether it may be another host's.
    any_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last: everything else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_certificates_checked_needs_those_of_the_authorities() {
        let nowhere = Some(Path::new("/nowhere/root.crt"));
        for mode in [PgSslMode::Prefer, PgSslMode::Require] {
            assert!(client(mode, nowhere).is_ok());
        }
        for mode in [PgSslMode::VerifyCa, PgSslMode::VerifyFull] {
            assert!(client(mode, nowhere).is_err());
            assert!(client(mode, None).is_ok(), "the well-known ones");
        }
    }
}
