/* SPDX-License-Identifier: GPL-3.0-or-later */
/* For test.lua: fork(), and wait(pid), which returns the exit status. */
#include <lauxlib.h>
#include <lua.h>
#include <sys/wait.h>
#include <unistd.h>

static int l_fork(lua_State *L)
{
    lua_pushinteger(L, fork());
    return 1;
}

static int l_wait(lua_State *L)
{
    int status = 0;
    waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0);
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return 1;
}

int luaopen_fork(lua_State *L)
{
    lua_register(L, "fork", l_fork);
    lua_register(L, "wait", l_wait);
    return 0;
}
