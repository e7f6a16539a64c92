/* Finds the real function behind a stand-in, at its first call. Compiled once per library; stand_ins.py gives the names in capitals. */
#include <dlfcn.h>
#include <stddef.h>

#define HIDDEN __attribute__((visibility("hidden")))

extern HIDDEN void *SLOTS[];
extern HIDDEN const char *const NAMES[];
/* 1 where the function returns a text, 0 where it returns a status. */
extern HIDDEN const char TEXTS[];

/* Answers for every function that is not there. */
static int no_status(void) { return ABSENT; }
static const char *no_text(void) { return SONAME " is not on this machine"; }

/* Called with the number of the function; what it returns is jumped to, now and at every later call. */
HIDDEN void *RESOLVE(size_t index) {
    /* Opening it again for each function costs little, and leaves no state that two threads could quarrel about. */
    void *library = dlopen(SONAME, RTLD_NOW | RTLD_GLOBAL);
    void *found = library ? dlsym(library, NAMES[index]) : NULL;
    if (!found)
        found = TEXTS[index] ? (void *)no_text : (void *)no_status;
    __atomic_store_n(&SLOTS[index], found, __ATOMIC_RELEASE);
    return found;
}
