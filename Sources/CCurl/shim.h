// The door to libcurl: outbound HTTP. The setopt and getinfo functions are variadic: one typed wrapper per kind of argument.
#pragma once
#include <curl/curl.h>

typedef size_t (*hc_curl_data_callback)(char *data, size_t size, size_t count, void *context);

static inline CURLcode hc_curl_set_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_offset(CURL *handle, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_pointer(CURL *handle, CURLoption option, void *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_callback(CURL *handle, CURLoption option, hc_curl_data_callback value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_open_socket(CURL *handle, curl_opensocket_callback value) {
    return curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, value);
}
static inline CURLcode hc_curl_set_close_socket(CURL *handle, curl_closesocket_callback value) {
    return curl_easy_setopt(handle, CURLOPT_CLOSESOCKETFUNCTION, value);
}
static inline CURLcode hc_curl_set_before_request(CURL *handle, curl_prereq_callback value) {
    return curl_easy_setopt(handle, CURLOPT_PREREQFUNCTION, value);
}
static inline CURLcode hc_curl_get_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLMcode hc_curl_multi_set_long(CURLM *handle, CURLMoption option, long value) {
    return curl_multi_setopt(handle, option, value);
}
static inline CURLMcode hc_curl_multi_set_pointer(CURLM *handle, CURLMoption option, void *value) {
    return curl_multi_setopt(handle, option, value);
}
static inline CURLMcode hc_curl_multi_set_socket(CURLM *handle, curl_socket_callback value) {
    return curl_multi_setopt(handle, CURLMOPT_SOCKETFUNCTION, value);
}
static inline CURLMcode hc_curl_multi_set_timer(CURLM *handle, curl_multi_timer_callback value) {
    return curl_multi_setopt(handle, CURLMOPT_TIMERFUNCTION, value);
}
/// CURLMsg.data is a union, of which CURLMSG_DONE uses `result`.
static inline CURLcode hc_curl_message_result(const CURLMsg *message) { return message->data.result; }

/// The address that a socket is to be opened for: it ends in a sockaddr that is longer than its type.
static inline const void *hc_curl_address(const struct curl_sockaddr *address) { return &address->addr; }
