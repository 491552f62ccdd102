#ifdef __cplusplus
}
#endif

#endif /* NS_THRPOOL_H */
