// The door to OpenSSL 3: TLS and all cryptography. Macros that Swift cannot import get a function here.
#pragma once
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/ocsp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static inline int hc_ssl_ctx_set_min_proto_version(SSL_CTX *context, int version) {
    return SSL_CTX_set_min_proto_version(context, version);
}

// Parameter names are string macros: Swift would pass temporary copies of them, but an OSSL_PARAM keeps the pointer.

/// EVP_MAC_init for HMAC with SHA-256. The key is copied.
static inline int hc_hmac_sha256_init(EVP_MAC_CTX *context, const unsigned char *key, size_t count) {
    char digest[] = "SHA2-256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    // EVP_MAC_init takes a null key for "the key you have".
    return EVP_MAC_init(context, count == 0 ? (const unsigned char *)"" : key, count, parameters);
}

/// EVP_KDF_derive for HKDF with SHA-256, extract and expand. Nothing is kept.
static inline int hc_hkdf_sha256(
    EVP_KDF_CTX *context, const void *key, size_t keyCount, const void *salt, size_t saltCount, const void *info,
    size_t infoCount, unsigned char *output, size_t outputCount) {
    char digest[] = "SHA2-256";
    OSSL_PARAM parameters[5];
    int count = 0;
    parameters[count++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, keyCount);
    if (saltCount > 0)
        parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, saltCount);
    if (infoCount > 0)
        parameters[count++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, infoCount);
    parameters[count] = OSSL_PARAM_construct_end();
    return EVP_KDF_derive(context, output, outputCount, parameters);
}

// TLS: macros around SSL_CTX_ctrl, SSL_ctrl and BIO flags.

static inline int hc_ssl_ctx_set_max_proto_version(SSL_CTX *context, int version) {
    return SSL_CTX_set_max_proto_version(context, version);
}

static inline void hc_ssl_ctx_set_mode(SSL_CTX *context, long mode) { SSL_CTX_set_mode(context, mode); }
static inline void hc_ssl_ctx_clear_mode(SSL_CTX *context, long mode) { SSL_CTX_clear_mode(context, mode); }

static inline void hc_ssl_ctx_set_session_cache_mode(SSL_CTX *context, long mode) {
    SSL_CTX_set_session_cache_mode(context, mode);
}

static inline int hc_ssl_ctx_set_groups(SSL_CTX *context, const char *list) {
    return (int)SSL_CTX_set1_groups_list(context, list);
}

static inline int hc_ssl_ctx_set_signature_algorithms(SSL_CTX *context, const char *list) {
    return (int)SSL_CTX_set1_sigalgs_list(context, list);
}

static inline void hc_ssl_ctx_set_servername_callback(SSL_CTX *context, int (*callback)(SSL *, int *, void *)) {
    SSL_CTX_set_tlsext_servername_callback(context, callback);
}

static inline void hc_ssl_ctx_set_status_callback(SSL_CTX *context, int (*callback)(SSL *, void *)) {
    SSL_CTX_set_tlsext_status_cb(context, callback);
}

/// The staple of one handshake, copied. None for a count of 0.
static inline int hc_ssl_set_ocsp_response(SSL *ssl, const unsigned char *bytes, size_t count) {
    unsigned char *copy = NULL;
    if (count > 0) {
        copy = (unsigned char *)OPENSSL_memdup(bytes, count);
        if (copy == NULL) return 0;
    }
    return (int)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)count);
}

/// Asks for a staple, as a client.
static inline void hc_ssl_request_ocsp(SSL *ssl) { SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp); }

static inline long hc_ssl_get_ocsp_response(SSL *ssl, const unsigned char **bytes) {
    return SSL_get_tlsext_status_ocsp_resp(ssl, bytes);
}

static inline int hc_ssl_set_host_name(SSL *ssl, const char *name) { return (int)SSL_set_tlsext_host_name(ssl, name); }

static inline void hc_bio_set_retry_read(BIO *bio) { BIO_set_retry_read(bio); }
static inline void hc_bio_clear_retry(BIO *bio) { BIO_clear_retry_flags(bio); }

// Stacks of certificates: the functions are macros of their type.
static inline STACK_OF(X509) *hc_x509_stack_new(void) { return sk_X509_new_null(); }
/// Takes the reference over.
static inline int hc_x509_stack_push(STACK_OF(X509) *stack, X509 *certificate) { return sk_X509_push(stack, certificate); }
static inline int hc_x509_stack_count(const STACK_OF(X509) *stack) { return sk_X509_num(stack); }
static inline X509 *hc_x509_stack_value(const STACK_OF(X509) *stack, int index) { return sk_X509_value(stack, index); }
static inline void hc_x509_stack_free(STACK_OF(X509) *stack) { sk_X509_pop_free(stack, X509_free); }

/// Calls `each` with every DNS name of the certificate's subjectAltName.
static inline void hc_x509_dns_names(
    const X509 *certificate, void (*each)(void *, const unsigned char *, int), void *context) {
    GENERAL_NAMES *names = (GENERAL_NAMES *)X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int index = 0; index < sk_GENERAL_NAME_num(names); index++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
        if (name->type == GEN_DNS)
            each(context, ASN1_STRING_get0_data(name->d.dNSName), ASN1_STRING_length(name->d.dNSName));
    }
    GENERAL_NAMES_free(names);
}

/// Seconds since 1970; 0 if the time is no time.
static inline int hc_asn1_time_seconds(const ASN1_TIME *time, long long *seconds) {
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, rest = 0;
    int result = ASN1_TIME_diff(&days, &rest, epoch, time);
    ASN1_TIME_free(epoch);
    *seconds = (long long)days * 86400 + rest;
    return result;
}

/// What a server never does: compression, renegotiation, the client's choice of the suite.
static inline void hc_ssl_ctx_set_server_options(SSL_CTX *context) {
    SSL_CTX_set_options(
        context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                     SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_SSLv3 | SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1);
}

static inline void hc_ssl_ctx_set_client_options(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
}

static inline void hc_ssl_ctx_refuse_tickets(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, 0);
}

static inline unsigned long hc_xn_flag_rfc2253(void) { return XN_FLAG_RFC2253; }
