// The door to OpenSSL 3: TLS and all cryptography. Macros that Swift cannot import get a function here.
#pragma once
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>

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
