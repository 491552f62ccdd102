/*
 * Jobs
 */
