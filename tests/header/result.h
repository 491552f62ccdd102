typedef enum _ns_result_t ns_result_t;

/*
 * Callbacks, and the config of a pool
 */
