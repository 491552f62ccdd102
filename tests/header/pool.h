/*
 * Pools
 */
