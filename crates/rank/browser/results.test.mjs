// The results page.

export {};
